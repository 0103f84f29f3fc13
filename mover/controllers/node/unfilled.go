package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// checkFilled rejects the backup of a claim that doesn't hold what a restore was to bring. One whose restore has
// Completed waits until the controller has said so of the claim: any mark on it, as long as it is read, means
// that a restore has come in between.
func (n *Node) checkFilled(ctx context.Context, job *v1alpha1.VolumeBackup) (verdict, error) {
	claim, err := n.marked(ctx, job)
	if err != nil || claim == nil {
		return verdict{}, err
	}

	by, err := n.restoresNamed(ctx, claim.Labels[contract.LabelUnfilled])
	if err != nil {
		return verdict{}, err
	}

	if why := jobs.Unfilled(claim, by); why != "" {
		f := state.RestoreNotDone(job.Spec.Volume, why)

		return verdict{permanent: &f}, nil
	}

	f := state.NotYetUnmarked(job.Spec.Volume, claim.Labels[contract.LabelUnfilled])

	return verdict{waiting: &f}, nil
}

// refilled finds a claim into which a restore has begun to write since its backup began.
func (n *Node) refilled(ctx context.Context, job *v1alpha1.VolumeBackup) (*state.Finding, error) {
	claim, err := n.marked(ctx, job)
	if err != nil || claim == nil {
		return nil, err
	}

	f := state.Refilled(job.Spec.Volume, claim.Labels[contract.LabelUnfilled])

	return &f, nil
}

// marked reads the claim of a backup, and returns it if it is marked as one that isn't filled.
func (n *Node) marked(ctx context.Context, job *v1alpha1.VolumeBackup) (*corev1.PersistentVolumeClaim, error) {
	ref := job.Spec.Volume
	if ref.Claim == nil {
		return nil, nil
	}

	var claim corev1.PersistentVolumeClaim

	found, err := n.get(ctx, ref.Namespace, ref.Claim.Name, &claim)
	if err != nil || !found || claim.Labels[contract.LabelUnfilled] == "" {
		return nil, err
	}

	return &claim, nil
}

// restoresNamed reads the VolumeRestore of that name; there is none in the list if it is gone.
func (n *Node) restoresNamed(ctx context.Context, name string) ([]v1alpha1.VolumeRestore, error) {
	var job v1alpha1.VolumeRestore

	found, err := n.get(ctx, n.Namespace, name, &job)
	if err != nil || !found {
		return nil, err
	}

	return []v1alpha1.VolumeRestore{job}, nil
}
