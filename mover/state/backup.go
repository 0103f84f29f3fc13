package state

import (
	"fmt"
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// NextBackup says what the daemon of a VolumeBackup's node does next about it.
func NextBackup(job *v1alpha1.VolumeBackup, o Observed, now time.Time, b Bounds) Decision {
	deadline, left := backupDeadline(job, now, b)
	d := next(work{
		status:   job.Status.JobStatus,
		created:  job.CreationTimestamp.Time,
		cancel:   wish(job.Spec.Cancel, canceled(job, job.Status.JobStatus, againBackup)),
		deadline: deadline,
		attempts: b.Attempts,
	}, o, now, b)

	if left > 0 && !d.Phase.Terminal() && (d.RequeueAfter == 0 || left < d.RequeueAfter) {
		d.RequeueAfter = left
	}

	return d
}

// BackupOverdue reports whether the job's deadline has passed.
func BackupOverdue(job *v1alpha1.VolumeBackup, now time.Time, b Bounds) bool {
	f, _ := backupDeadline(job, now, b)

	return f != nil
}

// backupDeadline returns the finding if the deadline has passed, and else the time left; 0 where there is no deadline.
func backupDeadline(job *v1alpha1.VolumeBackup, now time.Time, b Bounds) (*Finding, time.Duration) {
	var bound time.Duration

	switch o := job.Spec.Options; {
	case o.Deadline != nil:
		bound = o.Deadline.Duration
	case o.Frozen:
		bound = b.Freeze
	default:
		return nil, 0
	}

	if left := bound - now.Sub(job.CreationTimestamp.Time); left > 0 {
		return nil, left
	}

	if job.Spec.Options.Frozen {
		return &Finding{ReasonFreezeExceeded, fmt.Sprintf(
			"the application was quiesced by its hooks for %s and the volume was not done; it goes on now. "+
				"Raise the bound with the annotation estiba.dev/freeze-timeout on the Backup or Schedule (such as 45m), or back the volume up without hooks: "+
				"what was uploaded speeds up the next backup", bound)}, 0
	}

	return &Finding{ReasonDeadlineExceeded, fmt.Sprintf("the job was not done within its deadline of %s (spec.options.deadline)", bound)}, 0
}

// NextRestore says what the daemon of a VolumeRestore's node does next about it.
// The job must have been routed.
func NextRestore(job *v1alpha1.VolumeRestore, o Observed, now time.Time, b Bounds) Decision {
	return next(work{
		status:   job.Status.JobStatus,
		created:  job.CreationTimestamp.Time,
		cancel:   wish(job.Spec.Cancel, canceled(job, job.Status.JobStatus, againRestore)),
		attempts: b.Attempts,
	}, o, now, b)
}

// NextDeletion says what the controller does next about a SnapshotDeletion. What keeps it from going on is reported
// and tried again, at growing intervals, until the repository has confirmed that the snapshot is gone. It fails one
// only whose location or repository has not been there for days: there is nothing left to delete from.
func NextDeletion(job *v1alpha1.SnapshotDeletion, o Observed, now time.Time, b Bounds) Decision {
	s := job.Status.JobStatus
	if s.Phase.Terminal() {
		return stay(s)
	}

	switch o.Task.State {
	case TaskNone:
	case TaskQueued:
		return Decision{Phase: forward(s), Reason: ReasonQueued, Message: "waits for a free slot", Action: ActionNone, RequeueAfter: b.Recheck}
	case TaskRunning:
		return Decision{Phase: v1alpha1.PhaseInProgress, Reason: ReasonRunning, Action: ActionNone, RequeueAfter: b.Poll}
	case TaskEnded:
		if o.Task.Failure == nil {
			return completed(o.Task)
		}

		f := o.Task.Failure
		if d := abandoned(job, f.Finding, now, b); d != nil {
			return *d
		}

		if wait := b.RetryAfter(s.Attempts) - now.Sub(o.Task.Ended); wait > 0 {
			return Decision{
				Phase: forward(s), Reason: f.Reason, Action: ActionNone, RequeueAfter: wait,
				Message: fmt.Sprintf("%s (attempt %d; tried again until it is confirmed)", f.Message, s.Attempts),
			}
		}
	}

	if o.Waiting != nil && o.Permanent == nil {
		return Decision{Phase: forward(s), Reason: o.Waiting.Reason, Message: o.Waiting.Message, Action: ActionNone, RequeueAfter: b.Recheck}
	}

	if f := firstFinding(o.Permanent, o.Waiting); f != nil {
		if d := abandoned(job, *f, now, b); d != nil {
			return *d
		}

		return Decision{
			Phase: forward(s), Reason: f.Reason, Message: f.Message, Action: ActionNone,
			RequeueAfter: min(b.RetryAfter(max(s.Attempts, 1))*slowdown, b.RetryDelayMax),
		}
	}

	return Decision{Phase: forward(s), Reason: ReasonAccepted, Message: "asks the repository to forget the snapshot", Action: ActionStart, RequeueAfter: b.Poll}
}

// abandoned returns the decision about a deletion whose location or repository has been missing for as long as it
// is waited for; nil if it is tried again.
func abandoned(job *v1alpha1.SnapshotDeletion, f Finding, now time.Time, b Bounds) *Decision {
	missing := f.Reason == ReasonLocationNotFound || f.Reason == codeRepositoryNotFound
	if !missing || now.Sub(job.CreationTimestamp.Time) < b.Abandon {
		return nil
	}

	d := failed(Finding{f.Reason, fmt.Sprintf(
		"%s; gave up %s after the deletion was asked for: if the data is kept elsewhere, it stays there", f.Message, b.Abandon)})

	return &d
}

// codeRepositoryNotFound is the code of a worker that finds no repository.
const codeRepositoryNotFound = "RepositoryNotFound"

// slowdown is how much slower a deletion is tried again while something outside
// of the repository, such as its location's object, is missing.
const slowdown = 6

func firstFinding(fs ...*Finding) *Finding {
	for _, f := range fs {
		if f != nil {
			return f
		}
	}

	return nil
}
