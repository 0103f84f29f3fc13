package jobs

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// Restores lists all VolumeRestores. Errors wrap ErrNotInstalled.
func (j *Jobs) Restores(ctx context.Context) ([]v1alpha1.VolumeRestore, error) {
	var list v1alpha1.VolumeRestoreList
	if err := known(j.client.List(ctx, &list, client.InNamespace(j.namespace))); err != nil {
		return nil, fmt.Errorf("list VolumeRestores: %w", err)
	}

	return list.Items, nil
}

// Unfilled returns why the claim doesn't hold the data that a restore was to bring, with what to do, and an
// empty string for a claim that is whole. Restores are all that there are, of whichever claims.
func Unfilled(claim *corev1.PersistentVolumeClaim, restores []v1alpha1.VolumeRestore) string {
	name := claim.Labels[contract.LabelUnfilled]

	for _, r := range namedFirst(name, restores) {
		switch {
		case !targets(r, claim):
		case !r.Status.Phase.Terminal(), r.Name == name && !filled(r, claim), half(r, claim) && !filledLater(r, claim, restores):
			return unfilledBy(r)
		case r.Name == name:
			// The controller is about to take the label off.
			name = ""
		}
	}

	if name == "" {
		return ""
	}

	return fmt.Sprintf("VolumeRestore %s has not filled it and is gone; restore it again, or take it as it is (kubectl -n %s label pvc %s %s-)",
		name, claim.Namespace, claim.Name, contract.LabelUnfilled)
}

// namedFirst returns the restores with the named one before all others: of several that want a claim, it is the one
// that fills it.
func namedFirst(name string, restores []v1alpha1.VolumeRestore) []*v1alpha1.VolumeRestore {
	var first, others []*v1alpha1.VolumeRestore

	for i := range restores {
		if r := &restores[i]; r.Name == name {
			first = append(first, r)
		} else {
			others = append(others, r)
		}
	}

	return append(first, others...)
}

func targets(r *v1alpha1.VolumeRestore, claim *corev1.PersistentVolumeClaim) bool {
	t := r.Spec.Target

	return t.Claim != nil && t.Claim.Name == claim.Name && t.Namespace == claim.Namespace
}

func unfilledBy(r *v1alpha1.VolumeRestore) string {
	phase := r.Status.Phase

	switch {
	case phase == "":
		phase = v1alpha1.PhaseNew
	case phase == v1alpha1.PhaseCompleted:
		return fmt.Sprintf("VolumeRestore %s has filled another claim of this name; restore it again", r.Name)
	case phase.Terminal():
		return fmt.Sprintf("VolumeRestore %s, which was to fill it, has ended as %s (%s); restore it again, or take it as it is (kubectl -n %s label pvc %s %s-)",
			r.Name, phase, r.Status.Reason, r.Spec.Target.Namespace, r.Spec.Target.Claim.Name, contract.LabelUnfilled)
	}

	return fmt.Sprintf("VolumeRestore %s, which fills it, is %s; back it up again when that has Completed", r.Name, phase)
}

// filled reports whether the restore has filled the very claim, and not an earlier one of its name.
func filled(r *v1alpha1.VolumeRestore, claim *corev1.PersistentVolumeClaim) bool {
	return r.Status.Phase == v1alpha1.PhaseCompleted && (r.Status.ClaimUID == "" || r.Status.ClaimUID == claim.UID)
}

// half reports whether the restore ended in the middle of the claim, and could not mark it: the label on those that
// it has marked says so, or somebody has taken it off.
func half(r *v1alpha1.VolumeRestore, claim *corev1.PersistentVolumeClaim) bool {
	s := r.Status

	return s.Phase.Terminal() && s.Phase != v1alpha1.PhaseCompleted && s.WritingSince != nil && s.ClaimUID == claim.UID &&
		!meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionClaimMarked)
}

func filledLater(than *v1alpha1.VolumeRestore, claim *corev1.PersistentVolumeClaim, restores []v1alpha1.VolumeRestore) bool {
	for i := range restores {
		r := &restores[i]
		if end := r.Status.CompletionTimestamp; targets(r, claim) && filled(r, claim) && end != nil && !end.Before(than.Status.CompletionTimestamp) {
			return true
		}
	}

	return false
}
