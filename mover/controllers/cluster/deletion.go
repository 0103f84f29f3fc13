package cluster

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// ReconcileDeletion has one snapshot forgotten, and tries until that is confirmed.
func (c *Cluster) ReconcileDeletion(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	job := &v1alpha1.SnapshotDeletion{}

	found, err := c.read(ctx, req.Name, job)
	if !found {
		if err == nil {
			c.Tasks.End(req.Name, task.Forget)
		}

		return ctrl.Result{}, err
	}

	if job.Status.Phase.Terminal() {
		c.Tasks.End(job.Name, task.Forget)

		// Nothing asks for a deletion's job any more: its Backup is gone.
		return c.supervise(ctx, job, &job.Status.JobStatus,
			state.Subject{Status: job.Status.JobStatus, Created: job.CreationTimestamp.Time}, state.OwnerGone)
	}

	run, _ := c.Tasks.Look(job.Name)
	if run.State != state.TaskNone && run.UID != job.UID {
		c.Tasks.End(job.Name, task.Forget)
		return ctrl.Result{RequeueAfter: c.Bounds.Soon}, nil
	}

	seen := state.Observed{Task: run.Task}

	seen.Permanent, err = c.checkLocation(ctx, job.Spec.Repository.BackupStorageLocation)
	if err != nil {
		return ctrl.Result{}, err
	}

	if seen.Waiting, err = c.checkTaken(ctx, job.Spec.Snapshot.Job); err != nil {
		return ctrl.Result{}, err
	}

	return c.applyDeletion(ctx, job, run, seen)
}

// checkTaken looks whether the snapshot may still come to be: what is forgotten
// before it is there stays for ever.
func (c *Cluster) checkTaken(ctx context.Context, name string) (*state.Finding, error) {
	var backup v1alpha1.VolumeBackup

	found, err := c.read(ctx, name, &backup)
	if !found || backup.Status.Phase.Terminal() {
		return nil, err
	}

	return &state.Finding{
		Reason:  state.ReasonBackupNotDone,
		Message: fmt.Sprintf("VolumeBackup %s, which takes the snapshot, has not ended (status.phase); the snapshot is removed when it has", name),
	}, nil
}

func (c *Cluster) checkLocation(ctx context.Context, name string) (*state.Finding, error) {
	var location velerov1.BackupStorageLocation

	found, err := c.read(ctx, name, &location)
	if err != nil {
		return nil, err
	}

	switch {
	case !found:
		return &state.Finding{
			Reason:  state.ReasonLocationNotFound,
			Message: fmt.Sprintf("BackupStorageLocation %s does not exist; make it again to have the snapshot removed, or delete this object to leave it where it is", name),
		}, nil
	case location.Spec.AccessMode == velerov1.BackupStorageLocationAccessModeReadOnly:
		return &state.Finding{
			Reason:  state.ReasonLocationReadOnly,
			Message: fmt.Sprintf("BackupStorageLocation %s is read-only (spec.accessMode); the snapshot is removed when it is writable again", name),
		}, nil
	default:
		return nil, nil
	}
}

func (c *Cluster) applyDeletion(ctx context.Context, job *v1alpha1.SnapshotDeletion, run task.Run, seen state.Observed) (ctrl.Result, error) {
	now := c.Clock.Now()
	before := job.DeepCopy()

	if run.Ran {
		job.Status.Attempts = max(job.Status.Attempts, run.Attempt)
	}

	dec := state.NextDeletion(job, seen, now, c.Bounds)
	state.Apply(&job.Status.JobStatus, dec, now)

	if dec.Phase == v1alpha1.PhaseCompleted && run.Result.Forget != nil {
		job.Status.Deleted = int32(min(run.Result.Forget.Deleted, 1<<30))
	}

	if err := c.patchStatus(ctx, job, before); err != nil {
		return settle(0, err)
	}

	if before.Status.Phase != dec.Phase || before.Status.Reason != dec.Reason {
		c.event(job, seen.Permanent != nil || run.Failure != nil, dec.Reason, dec.Message)
	}

	if dec.Action == state.ActionStart {
		c.Tasks.Begin(job.Name, task.Work{
			UID: job.UID, Attempt: job.Status.Attempts + 1, Repository: job.Spec.Repository,
			Forget: &engine.ForgetRequest{Job: job.Spec.Snapshot.Job, Expect: jobs.ExpectedTags(job.Spec.Snapshot, job.Spec.Repository)},
		})
	}

	if dec.Phase.Terminal() {
		c.Tasks.End(job.Name, task.Forget)
		c.count("SnapshotDeletion", job, &job.Status.JobStatus, job.Spec.Repository.Namespace)
	}

	return settle(dec.RequeueAfter, nil)
}
