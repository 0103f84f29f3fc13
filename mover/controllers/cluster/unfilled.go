package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// filling returns the VolumeRestore that the claim's label names, if that is another one than the job, fills
// the same claim and has not ended. The cache may not know it yet.
func (c *Cluster) filling(ctx context.Context, job *v1alpha1.VolumeRestore, claim state.Claim) (string, error) {
	if claim.Unfilled == "" || claim.Unfilled == job.Name {
		return "", nil
	}

	var other v1alpha1.VolumeRestore

	err := c.Direct.Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: claim.Unfilled}, &other)
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("read VolumeRestore %s, which the label %s of the claim names: %w", claim.Unfilled, contract.LabelUnfilled, err)
	}

	if apierrors.IsNotFound(err) {
		return "", nil
	}

	t := other.Spec.Target
	if other.Status.Phase.Terminal() || t.Claim == nil || t.Namespace != job.Spec.Target.Namespace || t.Claim.Name != job.Spec.Target.Claim.Name {
		return "", nil
	}

	return other.Name, nil
}

// unfilled returns why a claim doesn't hold what a restore was to bring; an empty string where it does, or isn't there.
func (c *Cluster) unfilled(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	if claim == nil {
		return "", nil
	}

	var list v1alpha1.VolumeRestoreList
	if err := c.listHere(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return "", err
	}

	return jobs.Unfilled(claim, list.Items), nil
}

// mark puts the label on the restore's claim that says it isn't filled, before anything is written to its volume. Of
// two restores that mark a claim at a time one gets a conflict, and then finds the other's label. The data is worth
// more: a label that is refused for good is told in an event, and the restore goes on.
func (c *Cluster) mark(ctx context.Context, job *v1alpha1.VolumeRestore, claim *corev1.PersistentVolumeClaim) error {
	if claim == nil {
		return nil
	}

	if m := state.Mark(job, seen(claim), c.Clock.Now()); m != nil {
		if err := c.remember(ctx, job, *m); err != nil {
			return err
		}
	}

	err := c.setUnfilled(ctx, claim, job.Name)
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		c.event(job, true, state.ReasonClaimUnmarked, fmt.Sprintf(
			"%v; the restore goes on, but take no backup of the claim before it has Completed", err))

		return c.remember(ctx, job, state.Unmarkable(job, c.Clock.Now()))
	}

	return err
}

// remember writes down what was found when the claim was marked.
func (c *Cluster) remember(ctx context.Context, job *v1alpha1.VolumeRestore, m metav1.Condition) error {
	before := job.DeepCopy()
	meta.SetStatusCondition(&job.Status.Conditions, m)

	return c.patchStatus(ctx, job, before)
}

// unmark takes the label off the claim of a restore that has ended, if the claim is filled.
func (c *Cluster) unmark(ctx context.Context, job *v1alpha1.VolumeRestore) error {
	if !job.Status.Phase.Terminal() {
		return nil
	}

	claim, err := c.liveClaim(ctx, job.Spec.Target)
	if err != nil || !state.Filled(job, seen(claim)) {
		return err
	}

	return client.IgnoreNotFound(c.setUnfilled(ctx, claim, ""))
}

// setUnfilled sets the claim's label, unless somebody has changed the claim since it was read. An empty value takes it off.
func (c *Cluster) setUnfilled(ctx context.Context, claim *corev1.PersistentVolumeClaim, value string) error {
	if claim.Labels[contract.LabelUnfilled] == value {
		return nil
	}

	before := claim.DeepCopy()
	labels := maps.Clone(claim.Labels)

	switch {
	case value == "":
		delete(labels, contract.LabelUnfilled)
	case labels == nil:
		labels = map[string]string{contract.LabelUnfilled: value}
	default:
		labels[contract.LabelUnfilled] = value
	}

	claim.Labels = labels

	if err := c.Client.Patch(ctx, claim, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("set label %s of PersistentVolumeClaim %s/%s to %q: %w", contract.LabelUnfilled, claim.Namespace, claim.Name, value, err)
	}

	return nil
}

// liveClaim reads the claim behind a volume; nil where there is none.
func (c *Cluster) liveClaim(ctx context.Context, ref v1alpha1.VolumeReference) (*corev1.PersistentVolumeClaim, error) {
	if ref.Claim == nil {
		return nil, nil
	}

	claim := new(corev1.PersistentVolumeClaim)

	err := c.Direct.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Claim.Name}, claim)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}

	if err != nil {
		return nil, fmt.Errorf("read PersistentVolumeClaim %s/%s: %w", ref.Namespace, ref.Claim.Name, err)
	}

	return claim, nil
}

// seen is what counts of a claim that may not exist.
func seen(claim *corev1.PersistentVolumeClaim) state.Claim {
	if claim == nil {
		return state.Claim{}
	}

	return state.Claim{
		Found: true, UID: string(claim.UID), Unfilled: claim.Labels[contract.LabelUnfilled], Created: claim.CreationTimestamp.Time,
		Bound:  claim.Spec.VolumeName != "" && claim.Status.Phase == corev1.ClaimBound,
		Lost:   claim.Status.Phase == corev1.ClaimLost,
		Block:  claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock,
		Shared: shared(claim.Spec.AccessModes),
		OnePod: slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod),
	}
}
