package cluster

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/state"
)

// backupOwner returns how the job's Backup stands, and the Backup; nil where there is none of its name.
func (c *Cluster) backupOwner(ctx context.Context, job *v1alpha1.VolumeBackup) (state.Owner, *velerov1.Backup, error) {
	b := &velerov1.Backup{}

	found, err := c.read(ctx, job.Spec.Backup.Name, b)
	if err != nil {
		return state.OwnerUnknown, nil, err
	}

	if !found {
		b = nil
	}

	return target.BackupOwner(b, job), b, nil
}

// tellOfLost says on the job and on its Backup, once, that Velero has ended the Backup without the job: Velero loses an
// operation where it backs up several items at a time (velero v1.18.3 pkg/backup/item_backupper.go).
func (c *Cluster) tellOfLost(ctx context.Context, job *v1alpha1.VolumeBackup, owner state.Owner, b *velerov1.Backup) error {
	f := state.LostOperation(job, owner)
	if f == nil {
		return nil
	}

	before := job.DeepCopy()

	meta.SetStatusCondition(&job.Status.Conditions, metav1.Condition{
		Type: state.ConditionOperationLost, Status: metav1.ConditionTrue, Reason: f.Reason, Message: f.Message,
		LastTransitionTime: metav1.NewTime(c.Clock.Now()),
	})

	if err := c.patchStatus(ctx, job, before); err != nil {
		return err
	}

	c.Metrics.OperationLost(f.Reason)
	c.event(job, true, f.Reason, f.Message)
	c.event(b, true, f.Reason, fmt.Sprintf("VolumeBackup %s: %s", job.Name, f.Message))

	return nil
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
