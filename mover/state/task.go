package state

import (
	"fmt"
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// TaskState is where a worker's run stands.
type TaskState int

// The states of a task.
const (
	// TaskNone: this process knows of no run of the job.
	TaskNone TaskState = iota
	// TaskQueued: it waits for a slot.
	TaskQueued
	// TaskRunning: the worker runs.
	TaskRunning
	// TaskEnded: it is over, with or without a failure.
	TaskEnded
)

// Task is one run of a worker for a job, as the process that started it sees it.
type Task struct {
	State TaskState
	// Attempt is the number of this run, from 1.
	Attempt int32
	// Ran reports whether a worker was really started.
	Ran bool
	// Behind is the job that a queued one waits for, because it moves the same volume; empty where it waits for a slot.
	Behind string
	// CancelRequested is when the run was told to stop; zero if it was not.
	CancelRequested time.Time
	// Ended is when it ended.
	Ended time.Time
	// Failure is why it ended without a result; nil if it has one.
	Failure *Failure
	// Note is what is to be said of a run that ended well, but otherwise than asked; nil if nothing is.
	Note *Finding
}

// Failure is why a run ended without a result.
type Failure struct {
	Finding
	// Retryable reports whether another attempt can help.
	Retryable bool
	// NotYet says that nothing was attempted, because something that comes by
	// itself is not there yet; it is looked for again at once and doesn't count as an attempt.
	NotYet bool
	// Drained says that the run was stopped because its daemon stops; the next daemon resumes it.
	Drained bool
}

func (t Task) live() bool { return t.State == TaskQueued || t.State == TaskRunning }

// Observed is what a node's daemon sees of a job.
type Observed struct {
	// Task is the job's run in this process.
	Task Task
	// Permanent is something wrong that waiting doesn't mend. It is looked for before a start only.
	Permanent *Finding
	// Waiting is something missing that may come by itself. It is looked for before a start only.
	Waiting *Finding
	// PodGone says that the pod is gone or going, so that its volume must be let go at once.
	PodGone *Finding
	// MountLost says that the pod is gone or going through which a job reaches a claim that can be reached through
	// another one: the volume must be let go, and the controller finds the job another way.
	MountLost *Finding
	// Spoiled says that somebody else may write to the volume of a restore: not even
	// one that has ended well is completed then.
	Spoiled *Finding
}

// work is what the machine of all jobs needs to know of one.
type work struct {
	status  v1alpha1.JobStatus
	created time.Time
	// cancel is why the job is to end; nil if nobody wants it to.
	cancel   *Finding
	deadline *Finding
	attempts int32 // bound; 0 means none
}

// failures is how many of the first n attempts have failed or may still fail: those that ended with their daemon have not.
func (w work) failures(n int32) int32 { return n - w.status.Interruptions }

// interrupted reports whether the daemon that ran the job's worker is gone, and the worker with it.
func (w work) interrupted(t Task) bool {
	return t.State == TaskNone && w.status.Phase == v1alpha1.PhaseInProgress && w.status.Attempts > w.status.Interruptions &&
		(w.status.Reason == ReasonRunning || w.status.Reason == ReasonDraining)
}

// stop is why a run must not go on, and in which phase that ends.
type stop struct {
	Finding
	phase v1alpha1.Phase
}

// next is the machine that all jobs share.
func next(w work, o Observed, now time.Time, b Bounds) Decision {
	if w.status.Phase.Terminal() {
		d := stay(w.status)
		if o.Task.live() {
			d.Action = ActionKill
		}

		return d
	}

	switch well := o.Task.State == TaskEnded && o.Task.Failure == nil; {
	case well && (o.Spoiled != nil || spoils(w.status.Reason)):
		return failed(spoiledBy(w, o))
	case well && o.Waiting != nil:
		// What must be looked at before it counts as done could not be.
		return nextWaiting(w, *o.Waiting, now, b)
	}

	if s := stopping(w, o); s != nil {
		return nextStopped(*s, o.Task, now, b)
	}

	if d := mountLost(w, o, b); d != nil {
		return *d
	}

	switch o.Task.State {
	case TaskQueued:
		return waitingForSlot(w, o.Task.Behind, b)
	case TaskRunning:
		return Decision{Phase: v1alpha1.PhaseInProgress, Reason: ReasonRunning, Action: ActionNone, RequeueAfter: b.Poll}
	case TaskEnded:
		return nextEnded(w, o, now, b)
	default:
		return nextStart(w, o, now, b)
	}
}

// spoils reports whether a job that was stopped for the reason can't be completed by its worker any more.
func spoils(reason string) bool {
	return reason == ReasonUngatedPod || reason == ReasonGatePassed || reason == ReasonRestoreNotDone
}

func spoiledBy(w work, o Observed) Finding {
	if o.Spoiled != nil {
		return *o.Spoiled
	}

	return Finding{w.status.Reason, w.status.Message}
}

func stopping(w work, o Observed) *stop {
	switch {
	case o.Spoiled != nil:
		return &stop{*o.Spoiled, v1alpha1.PhaseFailed}
	case w.deadline != nil && (w.status.Phase != v1alpha1.PhaseCanceling || w.status.Reason == w.deadline.Reason):
		// Who waits for a job with a deadline cancels it, too, when that has passed. It doesn't end for that wish.
		return &stop{*w.deadline, v1alpha1.PhaseFailed}
	case w.cancel != nil:
		return &stop{*w.cancel, v1alpha1.PhaseCanceled}
	case w.status.Phase == v1alpha1.PhaseCanceling:
		return &stop{Finding{w.status.Reason, w.status.Message}, v1alpha1.PhaseFailed}
	case o.PodGone != nil:
		return &stop{*o.PodGone, v1alpha1.PhaseFailed}
	default:
		return nil
	}
}

func nextStopped(s stop, t Task, now time.Time, b Bounds) Decision {
	switch {
	case t.State == TaskEnded && t.Failure == nil:
		return completed(t)
	case !t.live():
		return Decision{Phase: s.phase, Reason: s.Reason, Message: s.Message, Action: ActionNone}
	case t.CancelRequested.IsZero():
		return Decision{Phase: v1alpha1.PhaseCanceling, Reason: s.Reason, Message: s.Message, Action: ActionCancel, RequeueAfter: b.Cancel}
	case now.Sub(t.CancelRequested) < b.Cancel:
		return Decision{
			Phase: v1alpha1.PhaseCanceling, Reason: s.Reason, Message: s.Message, Action: ActionNone,
			RequeueAfter: b.Cancel - now.Sub(t.CancelRequested),
		}
	default:
		return Decision{
			Phase: s.phase, Reason: ReasonCancelTimedOut, Action: ActionKill,
			Message: fmt.Sprintf("%s; the worker had not stopped %s later and was ended by force", s.Message, b.Cancel),
		}
	}
}

// mountLost ends the run of a job whose way to its claim is lost, and leaves the job to the controller; nil if it
// isn't, or if all is done.
func mountLost(w work, o Observed, b Bounds) *Decision {
	if o.MountLost == nil || o.Task.State == TaskEnded && o.Task.Failure == nil {
		return nil
	}

	d := Decision{Phase: forward(w.status), Reason: o.MountLost.Reason, Message: o.MountLost.Message, Action: ActionNone, RequeueAfter: b.Recheck}
	if o.Task.live() {
		d.Action = ActionKill
	}

	return &d
}

func completed(t Task) Decision {
	d := Decision{Phase: v1alpha1.PhaseCompleted, Reason: ReasonCompleted, Action: ActionNone}
	if t.Note != nil {
		d.Reason, d.Message = t.Note.Reason, t.Note.Message
	}

	return d
}

// waitingForSlot never takes a job back from InProgress: the phase only goes forward.
func waitingForSlot(w work, behind string, b Bounds) Decision {
	if behind == "" && comes(w.status.Reason) {
		// It looks again for what was missing, and has been waiting since then.
		d := stay(w.status)
		d.RequeueAfter = b.Recheck

		return d
	}

	d := Decision{Phase: forward(w.status), Reason: ReasonQueued, Message: "waits for a free slot on its node", Action: ActionNone, RequeueAfter: b.Recheck}
	if behind != "" {
		d.Reason, d.Message = ReasonVolumeBusy, fmt.Sprintf("waits for VolumeBackup %s, which uploads the same volume; what it stores need not be read again", behind)
	}

	return d
}

// comes reports whether the reason is one of something that comes by itself.
func comes(reason string) bool {
	switch reason {
	case ReasonVolumeNotMounted, ReasonGateNotReached, ReasonWaitingForPodEnd, ReasonNotRouted, ReasonAPIUnavailable:
		return true
	default:
		return false
	}
}

func forward(s v1alpha1.JobStatus) v1alpha1.Phase {
	if s.Phase == v1alpha1.PhaseInProgress {
		return v1alpha1.PhaseInProgress
	}

	return v1alpha1.PhaseAccepted
}

func nextEnded(w work, o Observed, now time.Time, b Bounds) Decision {
	f := o.Task.Failure

	switch {
	case f == nil:
		return completed(o.Task)
	case f.Drained && !o.Task.Ran:
		// It only stood in the queue, and does so again.
		return stay(w.status)
	case f.Drained:
		return Decision{Phase: forward(w.status), Reason: ReasonDraining, Message: f.Message, Action: ActionNone}
	case f.NotYet:
		return nextNotYet(w, o, now, b)
	case !f.Retryable:
		return failed(f.Finding)
	case w.attempts > 0 && w.failures(o.Task.Attempt) >= w.attempts:
		return failed(Finding{f.Reason, fmt.Sprintf("%s (attempt %d of %d, the last)", f.Message, w.failures(o.Task.Attempt), w.attempts)})
	}

	wait := b.RetryAfter(o.Task.Attempt) - now.Sub(o.Task.Ended)
	if wait <= 0 {
		return nextStart(w, o, now, b)
	}

	return Decision{
		Phase: forward(w.status), Reason: f.Reason, Action: ActionNone, RequeueAfter: wait,
		Message: fmt.Sprintf("%s (attempt %d; the next one starts %s after it)", f.Message, o.Task.Attempt, b.RetryAfter(o.Task.Attempt)),
	}
}

func nextNotYet(w work, o Observed, now time.Time, b Bounds) Decision {
	d := nextWaiting(w, o.Task.Failure.Finding, now, b)
	if d.Phase.Terminal() || now.Sub(o.Task.Ended) < b.Soon {
		return d
	}

	if again := nextStart(w, o, now, b); again.Action != ActionStart {
		return again
	}

	d.Action = ActionStart

	return d
}

func nextWaiting(w work, f Finding, now time.Time, b Bounds) Decision {
	if since, known := WaitingSince(w.status, f.Reason); known && now.Sub(since) >= b.Gate {
		return failed(Finding{f.Reason, fmt.Sprintf("%s; gave up after %s", f.Message, b.Gate)})
	}

	d := Decision{Phase: forward(w.status), Reason: f.Reason, Message: f.Message, Action: ActionNone, RequeueAfter: b.Soon}
	if f.Reason == ReasonAPIUnavailable {
		// It is not asked twice a second on top of its troubles.
		d.RequeueAfter = b.Recheck
	}

	return d
}

func nextStart(w work, o Observed, now time.Time, b Bounds) Decision {
	switch {
	case o.Permanent != nil:
		return failed(*o.Permanent)
	case o.Waiting != nil:
		return nextWaiting(w, *o.Waiting, now, b)
	case w.interrupted(o.Task):
		return nextInterrupted(w, b)
	case w.attempts > 0 && w.failures(w.status.Attempts) >= w.attempts:
		return failed(Finding{ReasonAttemptsExhausted, fmt.Sprintf(
			"the worker was started %d times and never ended with a result; see the log of the node's daemon for the runs before", w.status.Attempts)})
	}

	d := Decision{Phase: forward(w.status), Reason: ReasonAccepted, Message: "taken on by the node's daemon", Action: ActionStart, RequeueAfter: b.Poll}
	if w.status.Phase == v1alpha1.PhaseInProgress && o.Task.State == TaskNone {
		d.Reason, d.Message = ReasonResumed, "the node's daemon was started anew and starts the worker again"
	}

	return d
}

// nextInterrupted starts a worker anew that ended with its daemon. That is no failure of the job, but bounded too: it may
// be this very worker that takes the daemon down.
func nextInterrupted(w work, b Bounds) Decision {
	if b.Restarts > 0 && w.status.Interruptions >= b.Restarts {
		return failed(Finding{ReasonAttemptsExhausted, fmt.Sprintf(
			"the node's daemon ended %d times while the job's worker ran; see the daemon's log of the runs before, and the events of its pod", w.status.Interruptions+1)})
	}

	return Decision{
		Phase: w.status.Phase, Reason: ReasonResumed, Message: "the node's daemon was started anew and starts the worker again",
		Action: ActionStart, Interruption: true, RequeueAfter: b.Poll,
	}
}
