package target

import (
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

// BackupOwner returns how the Backup that a job names stands; b is nil where there is none of its name.
func BackupOwner(b *velerov1.Backup, job *v1alpha1.VolumeBackup) state.Owner {
	if b == nil || b.UID != job.Spec.Backup.UID {
		return state.OwnerGone
	}

	switch b.Status.Phase {
	case velerov1.BackupPhaseFailed, velerov1.BackupPhaseFailedValidation:
		return state.OwnerFailed
	case velerov1.BackupPhaseDeleting:
		return state.OwnerDeleting
	case velerov1.BackupPhaseCompleted, velerov1.BackupPhasePartiallyFailed:
		if at := ended(b); !at.IsZero() && job.CreationTimestamp.After(at) {
			return state.OwnerClosed
		}

		if b.Status.Phase == velerov1.BackupPhaseCompleted {
			return state.OwnerCompleted
		}

		return state.OwnerDone
	case velerov1.BackupPhaseWaitingForPluginOperations, velerov1.BackupPhaseWaitingForPluginOperationsPartiallyFailed,
		// While it is finalized, Velero still reads the job objects.
		velerov1.BackupPhaseFinalizing, velerov1.BackupPhaseFinalizingPartiallyFailed:
		return state.OwnerWaiting
	default:
		return state.OwnerMakingObjects
	}
}

// ended returns when the Backup ended by the API server's clock, by which jobs are created; zero where Velero hasn't
// written it down. Velero's own clock may be behind: what it says is the start can't lie before the Backup was made.
func ended(b *velerov1.Backup) time.Time {
	if b.Status.CompletionTimestamp == nil {
		return time.Time{}
	}

	at := b.Status.CompletionTimestamp.Time

	if start := b.Status.StartTimestamp; start != nil && start.Time.Before(b.CreationTimestamp.Time) {
		at = at.Add(b.CreationTimestamp.Sub(start.Time))
	}

	return at
}
