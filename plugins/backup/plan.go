package backup

import (
	"context"
	"fmt"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// FreezeBound is how long an application may stay quiesced for its volumes:
// afterwards the jobs are cancelled, and Velero's post hook runs.
const FreezeBound = 10 * time.Minute

// plan is the decision on one volume and, if it is moved, all but the repository of its job.
type plan struct {
	verdict volumeselect.Verdict
	node    string
	volume  v1alpha1.VolumeReference
	source  contract.Source
	frozen  bool
}

// planClaim decides on the volume behind a claim.
func (s *Session) planClaim(ctx context.Context, b *velerov1.Backup, claim *corev1.PersistentVolumeClaim) (plan, error) {
	settings, err := s.settingsOf(ctx, b)
	if err != nil {
		return plan{}, err
	}

	c := volumeselect.Claim{Claim: claim}

	if c.Pods, err = s.podsIn(ctx, claim.Namespace); err != nil {
		return plan{}, err
	}

	if claim.Spec.VolumeName != "" && claim.Status.Phase == corev1.ClaimBound {
		var pv corev1.PersistentVolume

		switch err := s.get(ctx, "", claim.Spec.VolumeName, &pv); {
		case err == nil:
			c.Volume = &pv
		case !apierrors.IsNotFound(err):
			return plan{}, fmt.Errorf("read PersistentVolume %s of claim %s/%s: %w", claim.Spec.VolumeName, claim.Namespace, claim.Name, err)
		}
	}

	verdict, carrier := volumeselect.OfClaim(c, settings)
	p := plan{verdict: verdict}

	if verdict.Move {
		p.node = carrier.Pod.Spec.NodeName
		p.volume = claimReference(c, carrier)
		p.source = contract.ClaimSource(claim.Name, string(claim.UID), string(c.Volume.UID))
		p.frozen = anyHooked(c, b)
	}

	return p, nil
}

func claimReference(c volumeselect.Claim, carrier volumeselect.Carrier) v1alpha1.VolumeReference {
	return v1alpha1.VolumeReference{
		Kind:      v1alpha1.VolumePersistentVolumeClaim,
		Namespace: c.Claim.Namespace,
		Pod:       v1alpha1.PodReference{Name: carrier.Pod.Name, UID: carrier.Pod.UID},
		Name:      carrier.Volume,
		Claim: &v1alpha1.ClaimReference{
			Name: c.Claim.Name, UID: c.Claim.UID,
			PersistentVolume: c.Volume.Name, PersistentVolumeUID: c.Volume.UID,
		},
	}
}

// anyHooked tells whether a running pod that mounts the claim has hooks: its
// application is quiesced while the job runs.
func anyHooked(c volumeselect.Claim, b *velerov1.Backup) bool {
	for i := range c.Pods {
		pod := &c.Pods[i]
		if pod.Status.Phase != corev1.PodRunning || !hooked(pod, b.Spec.Hooks) {
			continue
		}

		for j := range pod.Spec.Volumes {
			if volumeselect.ClaimName(&pod.Spec.Volumes[j]) == c.Claim.Name {
				return true
			}
		}
	}

	return false
}

// planOwn decides on a volume that lives and dies with its pod.
func (s *Session) planOwn(ctx context.Context, b *velerov1.Backup, pod *corev1.Pod, volume *corev1.Volume) (plan, error) {
	settings, err := s.settingsOf(ctx, b)
	if err != nil {
		return plan{}, err
	}

	p := plan{verdict: volumeselect.Pod(pod, volume, settings)}

	if p.verdict.Move {
		p.node = pod.Spec.NodeName
		p.volume = v1alpha1.VolumeReference{
			Kind: v1alpha1.VolumeEmptyDir, Namespace: pod.Namespace, Name: volume.Name,
			Pod: v1alpha1.PodReference{Name: pod.Name, UID: pod.UID},
		}
		p.source = contract.EphemeralSource(workload(pod), string(pod.UID), volume.Name)
		p.frozen = hooked(pod, b.Spec.Hooks)
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

// job gives the VolumeBackup of a plan.
func (p plan) job(b *velerov1.Backup, repo v1alpha1.RepositoryReference, by v1alpha1.RequestedBy) *v1alpha1.VolumeBackup {
	spec := v1alpha1.VolumeBackupSpec{
		Backup:      v1alpha1.OwnerReference{Name: b.Name, UID: b.UID},
		Repository:  repo,
		Volume:      p.volume,
		Source:      v1alpha1.SourceIdentity{Path: p.source.Path, Instance: p.source.Instance},
		RequestedBy: by,
	}

	if p.frozen {
		spec.Options = v1alpha1.BackupOptions{Frozen: true, Deadline: &metav1.Duration{Duration: FreezeBound}}
	}

	return jobs.NewBackup(b.Namespace, p.node, spec)
}

// request makes sure of the plan's job. While Velero finalizes a backup, nothing
// new is asked for: the job is looked up, so that the item's record is written again.
func (s *Session) request(ctx context.Context, b *velerov1.Backup, p plan, by v1alpha1.RequestedBy) (*v1alpha1.VolumeBackup, jobs.Outcome, error) {
	j, err := s.jobs(b.Namespace)
	if err != nil {
		return nil, "", err
	}

	if finalizing(b) {
		job, err := j.Backup(ctx, jobs.BackupJobName(b.UID, p.volume))

		return job, jobs.Found, err
	}

	repo, err := s.ready(ctx, b, p.volume.Namespace, p.node)
	if err != nil {
		return nil, "", err
	}

	job, outcome, err := j.EnsureBackup(ctx, p.job(b, repo, by))

	return job, outcome, notInstalled(err)
}
