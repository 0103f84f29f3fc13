package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// plan is the decision on one volume and, if it is moved, all but the repository of its job.
type plan struct {
	verdict volumeselect.Verdict
	node    string
	volume  v1alpha1.VolumeReference
	source  contract.Source
	// frozen says that an application is quiesced while the job runs, and left for how long it may be yet.
	frozen bool
	left   time.Duration
}

// planClaim decides on the volume behind a claim.
func (s *Session) planClaim(ctx context.Context, b *velerov1.Backup, claim *corev1.PersistentVolumeClaim) (plan, error) {
	t, err := s.toldOf(ctx, b)
	if err != nil {
		return plan{}, err
	}

	c := volumeselect.Claim{Claim: claim, Snapshotted: s.snapshotted(b, claim)}

	if c.Pods, err = s.podsIn(ctx, claim.Namespace); err != nil {
		return plan{}, err
	}

	if claim.Spec.VolumeName != "" && claim.Status.Phase == corev1.ClaimBound {
		if c.Volume, err = s.persistentVolume(ctx, claim.Spec.VolumeName); err != nil {
			return plan{}, fmt.Errorf("read PersistentVolume %s of claim %s/%s: %w", claim.Spec.VolumeName, claim.Namespace, claim.Name, err)
		}
	}

	if c.Unfilled, err = s.unfilled(ctx, b, claim); err != nil {
		return plan{}, err
	}

	verdict, carrier := volumeselect.OfClaim(c, t.settings)
	p := plan{verdict: verdict}

	if verdict.Move {
		p.volume = claimReference(c, carrier)
		p.source = claimSource(c, carrier)

		if carrier.Pod != nil {
			p.node = carrier.Pod.Spec.NodeName
			p.frozen, p.left = s.anyFrozen(c, b, t.settings.Policies)
		}
	}

	return p, nil
}

// claimReference names no pod where the controller is to find or make one.
func claimReference(c volumeselect.Claim, carrier volumeselect.Carrier) v1alpha1.VolumeReference {
	ref := v1alpha1.VolumeReference{
		Kind:      v1alpha1.VolumePersistentVolumeClaim,
		Namespace: c.Claim.Namespace,
		Name:      carrier.Volume,
		Claim: &v1alpha1.ClaimReference{
			Name: c.Claim.Name, UID: c.Claim.UID,
			PersistentVolume: c.Volume.Name, PersistentVolumeUID: c.Volume.UID,
		},
	}

	if carrier.Pod != nil {
		ref.Pod = v1alpha1.PodReference{Name: carrier.Pod.Name, UID: carrier.Pod.UID}
	}

	return ref
}

// claimSource returns what the chain of the claim's snapshots follows: the claim's
// name, unless that is made anew with each pod.
func claimSource(c volumeselect.Claim, carrier volumeselect.Carrier) contract.Source {
	if volumeselect.OwnedByPod(c.Claim) {
		return contract.EphemeralSource(workload(carrier.Pod), string(carrier.Pod.UID), carrier.Volume)
	}

	return contract.ClaimSource(c.Claim.Name, string(c.Claim.UID), string(c.Volume.UID))
}

// anyFrozen reports whether hooks freeze and thaw a running pod that mounts the
// claim: its application is quiesced while the job runs. Velero runs none in a pod that the backup leaves out.
func (s *Session) anyFrozen(c volumeselect.Claim, b *velerov1.Backup, policies *volumeselect.Policies) (frozen bool, left time.Duration) {
	for i := range c.Pods {
		pod := &c.Pods[i]
		if pod.Status.Phase != corev1.PodRunning || !hooksOf(pod, b.Spec.Hooks).frozen() || !admitsPod(b, pod, policies) {
			continue
		}

		for j := range pod.Spec.Volumes {
			if v1alpha1.ClaimName(pod, &pod.Spec.Volumes[j]) != c.Claim.Name {
				continue
			}

			if of := s.left(b, pod.UID); !frozen || of < left {
				frozen, left = true, of
			}
		}
	}

	return frozen, left
}

// planOwn decides on a volume that lives and dies with its pod.
func (s *Session) planOwn(ctx context.Context, b *velerov1.Backup, pod *corev1.Pod, volume *corev1.Volume) (plan, error) {
	t, err := s.toldOf(ctx, b)
	if err != nil {
		return plan{}, err
	}

	p := plan{verdict: volumeselect.Pod(pod, volume, t.settings)}

	if p.verdict.Move {
		p.node = pod.Spec.NodeName
		p.volume = v1alpha1.VolumeReference{
			Kind: volumeselect.KindOf(volume), Namespace: pod.Namespace, Name: volume.Name,
			Pod: v1alpha1.PodReference{Name: pod.Name, UID: pod.UID},
		}
		p.source = contract.EphemeralSource(workload(pod), string(pod.UID), volume.Name)
		p.frozen, p.left = hooksOf(pod, b.Spec.Hooks).frozen(), s.left(b, pod.UID)
	}

	return p, nil
}

func workload(pod *corev1.Pod) contract.Workload {
	w := contract.Workload{Pod: pod.Name, PodTemplateHash: pod.Labels["pod-template-hash"]}

	if o := metav1.GetControllerOf(pod); o != nil {
		w.Kind, w.Name = o.Kind, o.Name
	}

	return w
}

// job returns the VolumeBackup of a plan.
func (p plan) job(b *velerov1.Backup, repo v1alpha1.RepositoryReference, by v1alpha1.RequestedBy) *v1alpha1.VolumeBackup {
	spec := v1alpha1.VolumeBackupSpec{
		Backup:      v1alpha1.OwnerReference{Name: b.Name, UID: b.UID},
		Repository:  repo,
		Volume:      p.volume,
		Source:      v1alpha1.SourceIdentity{Path: p.source.Path, Instance: p.source.Instance},
		RequestedBy: by,
	}

	if p.frozen {
		// A deadline of nothing would count as none.
		spec.Options = v1alpha1.BackupOptions{Frozen: true, Deadline: &metav1.Duration{Duration: max(p.left, time.Second)}}
	}

	return jobs.NewBackup(b.Namespace, p.node, spec)
}

// request makes sure of the plan's job. Where the job is known and it is only
// not known whether it exists, it is given beside the error.
func (s *Session) request(ctx context.Context, b *velerov1.Backup, p plan, by v1alpha1.RequestedBy) (*v1alpha1.VolumeBackup, jobs.Outcome, error) {
	j, err := s.connect.Jobs(b.Namespace)
	if err != nil {
		return nil, "", err
	}

	repo, err := s.ready(ctx, b, p.volume.Namespace, p.node)
	if err != nil {
		promised, unseen := s.promise(ctx, b, p.volume)

		return promised, "", errors.Join(err, unseen)
	}

	want := p.job(b, repo, by)

	job, outcome, err := j.EnsureBackup(ctx, want)
	if err != nil {
		return want, "", notInstalled(err, b.Namespace)
	}

	return job, outcome, nil
}

// made finds the job of a volume among those of the backup; nil where it has none.
func (s *Session) made(ctx context.Context, b *velerov1.Backup, v v1alpha1.VolumeReference) (*v1alpha1.VolumeBackup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.finished.value == nil || s.clock.Since(s.finished.at) >= memory {
		list, err := s.jobsOf(ctx, b)
		if err != nil {
			return nil, err
		}

		s.finished = remembered[map[string]*v1alpha1.VolumeBackup]{at: s.clock.Now(), value: list}
	}

	return s.finished.value[string(b.UID)+"/"+volumeKey(v)], nil
}

// jobsOf lists the jobs of the backup by volume.
func (s *Session) jobsOf(ctx context.Context, b *velerov1.Backup) (map[string]*v1alpha1.VolumeBackup, error) {
	j, err := s.connect.Jobs(b.Namespace)
	if err != nil {
		return nil, err
	}

	list, err := j.BackupsOf(ctx, b.UID)
	if err != nil {
		return nil, err
	}

	byVolume := make(map[string]*v1alpha1.VolumeBackup, len(list))
	for i := range list {
		byVolume[string(b.UID)+"/"+volumeKey(list[i].Spec.Volume)] = &list[i]
	}

	return byVolume, nil
}

// foresee remembers the job that the record of a PersistentVolume or a claim
// names: the record of the claim, and those of its pods, must name it, too, or a restore
// would find neither the volume nor the data, or a pod that doesn't wait for them.
func (s *Session) foresee(b *velerov1.Backup, job *v1alpha1.VolumeBackup) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.promised[string(b.UID)+"/"+volumeKey(job.Spec.Volume)] = job
}

// forget takes back what was foreseen.
func (s *Session) forget(b *velerov1.Backup, v v1alpha1.VolumeReference) {
	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.promised, string(b.UID)+"/"+volumeKey(v))
}

// foreseen returns the job that the record of a PersistentVolume or a claim names, or nil.
func (s *Session) foreseen(b *velerov1.Backup, v v1alpha1.VolumeReference) *v1alpha1.VolumeBackup {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.promised[string(b.UID)+"/"+volumeKey(v)]
}

// promise returns the job that the record of a claim, or of another of its pods, names, or nil. A process that was
// started in the middle of a backup, for the one before it had died, finds in the cluster what that one has asked for.
// One look is enough: what came later, this process has asked for itself.
func (s *Session) promise(ctx context.Context, b *velerov1.Backup, v v1alpha1.VolumeReference) (*v1alpha1.VolumeBackup, error) {
	if job := s.foreseen(b, v); job != nil {
		return job, nil
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	earlier, known := s.earlier[b.UID]
	if !known {
		var err error
		if earlier, err = s.jobsOf(ctx, b); err != nil {
			return nil, fmt.Errorf("look whether the job was asked for already: %w", err)
		}

		s.earlier[b.UID] = earlier
	}

	return earlier[string(b.UID)+"/"+volumeKey(v)], nil
}

func claimNamed(namespace, name string) v1alpha1.VolumeReference {
	return v1alpha1.VolumeReference{Namespace: namespace, Claim: &v1alpha1.ClaimReference{Name: name}}
}
