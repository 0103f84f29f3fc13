package cluster

import (
	"context"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

func (c *Cluster) backupOwner(ctx context.Context, ref v1alpha1.OwnerReference) (state.Owner, error) {
	var b velerov1.Backup

	found, err := c.read(ctx, ref.Name, &b)
	if err != nil {
		return state.OwnerUnknown, err
	}

	if !found || b.UID != ref.UID {
		return state.OwnerGone, nil
	}

	switch b.Status.Phase {
	case velerov1.BackupPhaseFailed, velerov1.BackupPhaseFailedValidation:
		return state.OwnerFailed, nil
	case velerov1.BackupPhaseCompleted, velerov1.BackupPhasePartiallyFailed, velerov1.BackupPhaseDeleting:
		return state.OwnerDone, nil
	case velerov1.BackupPhaseWaitingForPluginOperations, velerov1.BackupPhaseWaitingForPluginOperationsPartiallyFailed,
		// While it is finalized, Velero still reads the job objects.
		velerov1.BackupPhaseFinalizing, velerov1.BackupPhaseFinalizingPartiallyFailed:
		return state.OwnerWaiting, nil
	default:
		return state.OwnerMakingObjects, nil
	}
}

func (c *Cluster) restoreOwner(ctx context.Context, ref v1alpha1.OwnerReference) (state.Owner, error) {
	var r velerov1.Restore

	found, err := c.read(ctx, ref.Name, &r)
	if err != nil {
		return state.OwnerUnknown, err
	}

	if !found || r.UID != ref.UID {
		return state.OwnerGone, nil
	}

	switch r.Status.Phase {
	case velerov1.RestorePhaseFailed, velerov1.RestorePhaseFailedValidation:
		return state.OwnerFailed, nil
	case velerov1.RestorePhaseCompleted, velerov1.RestorePhasePartiallyFailed:
		return state.OwnerDone, nil
	case velerov1.RestorePhaseWaitingForPluginOperations, velerov1.RestorePhaseWaitingForPluginOperationsPartiallyFailed,
		velerov1.RestorePhaseFinalizing, velerov1.RestorePhaseFinalizingPartiallyFailed:
		return state.OwnerWaiting, nil
	default:
		return state.OwnerMakingObjects, nil
	}
}
