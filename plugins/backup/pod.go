package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// PodAction asks for the jobs of a pod's own volumes, and for those of its
// claims where no claim's action has, reports them, and waits for all of them
// where hooks quiesce the application.
type PodAction struct{ action }

// NewPodAction returns the action for pods.
func NewPodAction(log logrus.FieldLogger, s *Session) *PodAction {
	return &PodAction{action{name: "estiba.dev/backup-pod", session: s, log: log, resource: "pods"}}
}

// visit is one call of Execute.
type visit struct {
	session *Session
	log     logrus.FieldLogger
	backup  *velerov1.Backup
	pod     *corev1.Pod

	// volumes are the records of the pod's moved volumes.
	volumes map[string]contract.Volume
	// lost says of the volumes that are selected and have no job why that is so.
	lost map[string]string
	// all are the jobs of the pod's volumes; mine are those that its operation reports.
	all, mine []*v1alpha1.VolumeBackup
	// early are those of other pods that were asked for with this one's.
	early []*v1alpha1.VolumeBackup
}

// Execute decides on each volume of the pod, makes sure of the jobs, and
// returns the pod with a record of them and the operation that reports them.
func (a *PodAction) Execute(item runtime.Unstructured, b *velerov1.Backup) (
	runtime.Unstructured, []velero.ResourceIdentifier, string, []velero.ResourceIdentifier, error,
) {
	ctx, cancel, updated, log := a.begin("pod", item, b)
	defer cancel()

	pod, err := typed[corev1.Pod](updated)
	if err != nil {
		unprotected(log, "of pod "+updated.GetName(), err)

		return updated, nil, "", nil, nil
	}

	v := &visit{session: a.session, log: log, backup: b, pod: pod, volumes: map[string]contract.Volume{}, lost: map[string]string{}}
	hooks := hooksOf(pod, b.Spec.Hooks)
	if hooks.post && !finalizing(b) {
		v.askForBlock(ctx)
	}

	v.volumesOf(ctx)
	v.warnIfDropped(ctx)

	if err := annotatePod(updated, b, v.volumes, v.lost); err != nil {
		unprotected(log, "of pod "+pod.Name, err)
	}

	if hooks.post && !finalizing(b) && len(v.all) > 0 {
		a.session.thawWait(log, b, pod.UID, v.all, hooks.frozen())
	}

	// Velero leaves a pod out whose command before the backup fails. Its jobs are in the backup then, so that a
	// deletion finds their snapshots.
	id, items := operationFor(b, v.mine)
	if id != "" {
		items = append(items, jobItems(v.early)...)
	}

	return updated, nil, id, items, nil
}

func (v *visit) volumesOf(ctx context.Context) {
	for _, verdict := range volumeselect.Strays(v.pod) {
		v.say(verdict)
	}

	for i := range v.pod.Spec.Volumes {
		name := v.pod.Spec.Volumes[i].Name
		job, lost := v.volume(ctx, &v.pod.Spec.Volumes[i])

		if job == nil {
			if lost != "" {
				v.lost[name] = lost
			}

			continue
		}

		record, err := recordOf(job)
		if err != nil {
			v.lost[name] = notAskedFor(err)
			unprotected(v.log, name, err)

			continue
		}

		v.volumes[name] = record
	}
}

// volume returns the volume's job, or nil where there is none to be; then it says
// why, if somebody asked for the volume.
func (v *visit) volume(ctx context.Context, volume *corev1.Volume) (job *v1alpha1.VolumeBackup, lost string) {
	if finalizing(v.backup) {
		return v.made(ctx, volume)
	}

	p, err := v.plan(ctx, volume)

	switch {
	case err != nil:
		unprotected(v.log, volume.Name, err)

		return v.promised(ctx, volume), notAskedFor(err)
	case !p.verdict.Move:
		// The cluster goes on while the backup runs, and the claim's action came first.
		return v.promised(ctx, volume), lostBy(p.verdict)
	}

	// The claim's action has just made it: that needn't be asked again.
	if job := v.session.foreseen(v.backup, p.volume); job != nil && job.ResourceVersion != "" {
		v.take(job)

		return job, ""
	}

	job, outcome, err := v.session.request(ctx, v.backup, p, v1alpha1.RequestedByPod)
	if err != nil {
		missed(v.log, p.verdict, err)

		// A job that is known but for the API server's answer may exist. Its
		// record lets a restore find that out, before the pod starts.
		return job, notAskedFor(err)
	}

	asked(v.log, job, string(outcome))

	// One that a sibling pod asked for, through itself, is in the sibling's operation. One that a claim
	// asked for is in the claim's, unless that call's process died before it could say so.
	mine := job.Spec.RequestedBy == v1alpha1.RequestedByClaim || outcome == jobs.Created || job.Spec.Volume.Pod.UID == v.pod.UID
	if v.take(job) && mine {
		v.mine = append(v.mine, job)
	}

	return job, ""
}

// promised returns the job that the claim's record names. A restore fills the claim
// then, and its pods must wait for that.
func (v *visit) promised(ctx context.Context, volume *corev1.Volume) *v1alpha1.VolumeBackup {
	claim := v1alpha1.ClaimName(v.pod, volume)
	if claim == "" {
		return nil
	}

	job, err := v.session.promise(ctx, v.backup, claimNamed(v.pod.Namespace, claim))
	if err != nil && !errors.Is(err, jobs.ErrNotInstalled) {
		v.log.WithField("volume", volume.Name).Errorf("volume %s: a restore may not hold the pod for it: %v", volume.Name, err)
	}

	if job != nil {
		v.take(job)
	}

	return job
}

// take counts the job among the pod's, and reports whether it is new there: the
// pod may have one claim under two names.
func (v *visit) take(job *v1alpha1.VolumeBackup) bool {
	if slices.ContainsFunc(v.all, func(j *v1alpha1.VolumeBackup) bool { return j.Name == job.Name }) {
		return false
	}

	v.all = append(v.all, job)

	return true
}

// made finds the job that was asked for while the backup ran. What the cluster
// looks like now, when Velero finalizes, doesn't count.
func (v *visit) made(ctx context.Context, volume *corev1.Volume) (job *v1alpha1.VolumeBackup, lost string) {
	reference := v1alpha1.VolumeReference{Namespace: v.pod.Namespace, Name: volume.Name, Pod: v1alpha1.PodReference{Name: v.pod.Name}}
	if claim := v1alpha1.ClaimName(v.pod, volume); claim != "" {
		reference.Claim = &v1alpha1.ClaimReference{Name: claim}
	}

	job, err := v.session.made(ctx, v.backup, reference)
	if err != nil {
		unprotected(v.log, volume.Name, err)

		return nil, notAskedFor(err)
	}

	if job != nil {
		return job, ""
	}

	switch p, err := v.plan(ctx, volume); {
	case err != nil:
		return nil, ""
	case p.verdict.Move:
		return nil, "NotAskedFor: the backup has no VolumeBackup for it; see the backup's log"
	default:
		return nil, lostBy(p.verdict)
	}
}

func (v *visit) plan(ctx context.Context, volume *corev1.Volume) (plan, error) {
	name := v1alpha1.ClaimName(v.pod, volume)
	if name == "" {
		p, err := v.session.planOwn(ctx, v.backup, v.pod, volume)
		if err == nil {
			v.say(p.verdict)
		}

		return p, err
	}

	var claim corev1.PersistentVolumeClaim

	err := v.session.get(ctx, v.pod.Namespace, name, &claim)
	if apierrors.IsNotFound(err) {
		// The pod can't run without it, so there is nothing to be lost.
		claim.Namespace, claim.Name = v.pod.Namespace, name
	} else if err != nil {
		return plan{}, fmt.Errorf("read claim %s/%s: %w", v.pod.Namespace, name, err)
	}

	p, err := v.session.planClaim(ctx, v.backup, &claim)
	if err == nil {
		p.verdict.Volume = volume.Name
		v.session.say(v.log, v.backup, &claim, p.verdict)
	}

	return p, err
}

// say reports the verdict on a volume of the pod's own.
func (v *visit) say(verdict volumeselect.Verdict) {
	if !finalizing(v.backup) {
		report(v.log, verdict)
	}
}
