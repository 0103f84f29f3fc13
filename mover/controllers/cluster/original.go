package cluster

import (
	"context"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// provisionedBy is on every PersistentVolume that a provisioner made.
const provisionedBy = "pv.kubernetes.io/provisioned-by"

// putBack sets on the PersistentVolume of the restore's claim the labels and the reclaim policy of the
// original, before anything is written to it. The data is worth more: what is refused for good is told
// in an event, and the restore goes on.
func (c *Cluster) putBack(ctx context.Context, job *v1alpha1.VolumeRestore) error {
	if job.Spec.Original == nil || job.Spec.Target.Claim == nil {
		return nil
	}

	claim, pv, err := c.claimAndVolume(ctx, job.Spec.Target)
	if err != nil {
		return err
	}

	want := AsItWas(job, claim, pv)
	if want == nil {
		return nil
	}

	err = c.Client.Patch(ctx, want, client.MergeFromWithOptions(pv, client.MergeFromWithOptimisticLock{}))

	switch {
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		c.event(job, true, state.ReasonVolumeUnlabelled, fmt.Sprintf("the labels and the reclaim policy of the original could not be put back on PersistentVolume %s: %v", pv.Name, err))
	case err != nil:
		return fmt.Errorf("put the labels and the reclaim policy of the original back on PersistentVolume %s: %w", pv.Name, err)
	}

	return nil
}

// claimAndVolume reads a claim and the volume that it is bound to. What doesn't exist is left empty.
func (c *Cluster) claimAndVolume(ctx context.Context, ref v1alpha1.VolumeReference) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume, error) {
	var (
		claim corev1.PersistentVolumeClaim
		pv    corev1.PersistentVolume
	)

	err := c.Direct.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Claim.Name}, &claim)
	if err == nil && claim.Spec.VolumeName != "" {
		err = c.Direct.Get(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, &pv)
	}

	if client.IgnoreNotFound(err) != nil {
		return nil, nil, fmt.Errorf("read claim %s/%s and its volume: %w", ref.Namespace, ref.Claim.Name, err)
	}

	return &claim, &pv, nil
}

// AsItWas returns the claim's volume with the labels and the reclaim policy of the original, or nil where
// there is nothing to change, or where it is not one that was made for this claim by this restore: what
// was there before has them from whoever made it.
func AsItWas(job *v1alpha1.VolumeRestore, claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) *corev1.PersistentVolume {
	if job.Spec.Original == nil || !madeFor(job, claim, pv) {
		return nil
	}

	want := pv.DeepCopy()

	for key, value := range job.Spec.Original.Labels {
		if _, has := want.Labels[key]; !has && movable(key) {
			if want.Labels == nil {
				want.Labels = map[string]string{}
			}

			want.Labels[key] = value
		}
	}

	switch p := corev1.PersistentVolumeReclaimPolicy(job.Spec.Original.ReclaimPolicy); p {
	case corev1.PersistentVolumeReclaimRetain, corev1.PersistentVolumeReclaimDelete:
		want.Spec.PersistentVolumeReclaimPolicy = p
	default:
	}

	if maps.Equal(want.Labels, pv.Labels) && want.Spec.PersistentVolumeReclaimPolicy == pv.Spec.PersistentVolumeReclaimPolicy {
		return nil
	}

	return want
}

// madeFor reports whether the restore made the claim, and a provisioner the volume for that claim.
// The job is there before Velero makes the claim, and all three times are the API server's.
func madeFor(job *v1alpha1.VolumeRestore, claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) bool {
	ref := pv.Spec.ClaimRef

	return claim.Labels[contract.LabelRestoreName] == jobs.LabelValue(job.Spec.Restore.Name) && claim.DeletionTimestamp.IsZero() &&
		claim.Spec.VolumeName == pv.Name && ref != nil && ref.UID == claim.UID && claim.UID != "" &&
		pv.Status.Phase == corev1.VolumeBound && pv.DeletionTimestamp.IsZero() &&
		pv.Annotations[provisionedBy] != "" && !pv.CreationTimestamp.Before(&job.CreationTimestamp)
}

// movable reports whether a label may go to another volume. Those of Kubernetes say where the old volume is, and
// the scheduler heeds them; so do the topologies of CSI drivers. Velero's say who restored it.
func movable(key string) bool {
	domain, _, prefixed := strings.Cut(key, "/")
	if !prefixed {
		return true
	}

	for _, theirs := range []string{"kubernetes.io", "k8s.io", "velero.io"} {
		if domain == theirs || strings.HasSuffix(domain, "."+theirs) {
			return false
		}
	}

	return !strings.HasPrefix(domain, "topology.")
}
