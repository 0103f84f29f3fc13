package backup

import (
	"context"
	"slices"
	"strings"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// Velero runs the commands before the backup of all pods of an ItemBlock, then backs them up one after the other, and
// then runs the commands after it (velero v1.18.3 pkg/backup/backup.go). So an application is quiesced while the volumes
// of all others in its block are moved, and one bound counts for all of them.

// hookedTogether returns the other pods of the pod's block that commands after the backup are run in: pods that share
// claims with it, and those that the Backup wants in an order. That one of all, the pod included, is
// quiesced is said by frozen.
func (s *Session) hookedTogether(ctx context.Context, b *velerov1.Backup, pod *corev1.Pod, policies *volumeselect.Policies) (others []*corev1.Pod, frozen bool, err error) {
	block := []*corev1.Pod{pod}
	ordered := orderedPods(b)

	for i := 0; i < len(block); i++ {
		near, err := s.beside(ctx, block[i], ordered)
		if err != nil {
			return nil, false, err
		}

		for _, p := range near {
			known := slices.ContainsFunc(block, func(k *corev1.Pod) bool { return k.UID == p.UID })
			if !known && p.Status.Phase == corev1.PodRunning && admitsPod(b, p, policies) {
				block = append(block, p)
			}
		}
	}

	for _, p := range block {
		hooks := hooksOf(p, b.Spec.Hooks)
		frozen = frozen || hooks.frozen()

		if hooks.post && p.UID != pod.UID {
			others = append(others, p)
		}
	}

	return others, frozen, nil
}

// orderedPods returns the pods, as NAMESPACE/NAME, that Velero backs up in one block, one after the other.
func orderedPods(b *velerov1.Backup) []string {
	var names []string

	for _, kind := range []string{"pods", "pod", "po"} {
		for _, name := range strings.Split(b.Spec.OrderedResources[kind], ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}

	return names
}

// beside returns the pods that share a claim with the pod, and if it is one of the ordered ones, the others of them.
func (s *Session) beside(ctx context.Context, pod *corev1.Pod, ordered []string) ([]*corev1.Pod, error) {
	pods, err := s.podsIn(ctx, pod.Namespace)
	if err != nil {
		return nil, err
	}

	var near []*corev1.Pod

	for i := range pods {
		if shareClaim(pod, &pods[i]) {
			near = append(near, &pods[i])
		}
	}

	if !slices.Contains(ordered, pod.Namespace+"/"+pod.Name) {
		return near, nil
	}

	for _, title := range ordered {
		namespace, name, _ := strings.Cut(title, "/")

		pods, err := s.podsIn(ctx, namespace)
		if err != nil {
			return nil, err
		}

		if i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Name == name }); i >= 0 {
			near = append(near, &pods[i])
		}
	}

	return near, nil
}

func shareClaim(a, b *corev1.Pod) bool {
	return slices.ContainsFunc(a.Spec.Volumes, func(v corev1.Volume) bool {
		name := v1alpha1.ClaimName(a, &v)

		return name != "" && slices.ContainsFunc(b.Spec.Volumes, func(w corev1.Volume) bool { return v1alpha1.ClaimName(b, &w) == name })
	})
}

// quiesce says since when the bound counts for the pod: since Velero has come to it, or to a pod of its block which had its
// jobs asked for, too.
func (s *Session) quiesce(b *velerov1.Backup, pod types.UID, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()

	key := string(b.UID) + "/" + string(pod)
	if _, known := s.quiesced[key]; !known {
		s.quiesced[key] = since
	}
}

// left returns what is left of the bound for the pod.
func (s *Session) left(b *velerov1.Backup, pod types.UID) time.Duration {
	bound, _ := freezeBound(b) // the pod's action says what is wrong with it

	s.mu.Lock()
	defer s.mu.Unlock()

	since, known := s.quiesced[string(b.UID)+"/"+string(pod)]
	if !known {
		return bound
	}

	return max(bound-s.clock.Since(since), 0)
}

// askForBlock has the volumes of the pod's whole block moved at once, when Velero comes to the first of its pods. What
// can't be asked for yet is asked for when Velero comes to its pod, and has the bound from then on.
func (v *visit) askForBlock(ctx context.Context) {
	s, b, now := v.session, v.backup, v.session.clock.Now()
	s.quiesce(b, v.pod.UID, now)

	if !s.first(string(b.UID) + "/block/" + string(v.pod.UID)) {
		return
	}

	t, err := s.toldOf(ctx, b)
	if err != nil {
		return // said of each volume
	}

	others, frozen, err := s.hookedTogether(ctx, b, v.pod, t.settings.Policies)
	if err != nil || !frozen {
		return
	}

	for _, pod := range others {
		s.first(string(b.UID) + "/block/" + string(pod.UID))

		jobs, all := s.askEarly(ctx, b, pod, now)
		v.early = append(v.early, jobs...)

		if all {
			v.log.Infof("pod %s/%s is quiesced, too: its volumes are moved at the same time", pod.Namespace, pod.Name)
		}
	}
}

// askEarly asks for the jobs of a pod's volumes before Velero comes to it, and reports whether it has asked for all. It says
// nothing: the pod's own action does.
func (s *Session) askEarly(ctx context.Context, b *velerov1.Backup, pod *corev1.Pod, since time.Time) (asked []*v1alpha1.VolumeBackup, all bool) {
	var plans []plan

	for i := range pod.Spec.Volumes {
		p, ok := s.planEarly(ctx, b, pod, &pod.Spec.Volumes[i])
		if !ok {
			return nil, false
		}

		if p.verdict.Move {
			plans = append(plans, p)
		}
	}

	for _, p := range plans {
		by := v1alpha1.RequestedByPod
		if p.volume.Claim != nil {
			by = v1alpha1.RequestedByClaim
		}

		job, _, err := s.request(ctx, b, p, by)
		if err != nil {
			return asked, false
		}

		asked = append(asked, job)
	}

	s.quiesce(b, pod.UID, since)

	return asked, true
}

// planEarly decides on a volume before its action is called. Whether Velero takes a CSI snapshot of a claim only the claim's
// own action is told, and one that is taken by default is left to that.
func (s *Session) planEarly(ctx context.Context, b *velerov1.Backup, pod *corev1.Pod, volume *corev1.Volume) (plan, bool) {
	name := v1alpha1.ClaimName(pod, volume)
	if name == "" {
		p, err := s.planOwn(ctx, b, pod, volume)

		return p, err == nil
	}

	var claim corev1.PersistentVolumeClaim
	if err := s.get(ctx, pod.Namespace, name, &claim); err != nil {
		return plan{}, false
	}

	p, err := s.planClaim(ctx, b, &claim)
	snapshots := b.Spec.SnapshotVolumes == nil || *b.Spec.SnapshotVolumes

	return p, err == nil && (!p.verdict.Move || p.verdict.Reason != volumeselect.ReasonDefault || !snapshots)
}
