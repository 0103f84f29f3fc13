package state_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

var created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func backup(mutate ...func(*v1alpha1.VolumeBackup)) *v1alpha1.VolumeBackup {
	j := &v1alpha1.VolumeBackup{ObjectMeta: metav1.ObjectMeta{Name: "vb-1", CreationTimestamp: metav1.NewTime(created)}}
	for _, m := range mutate {
		m(j)
	}

	return j
}

func in(phase v1alpha1.Phase, reason string) func(*v1alpha1.VolumeBackup) {
	return func(j *v1alpha1.VolumeBackup) {
		j.Status.Phase, j.Status.Reason, j.Status.Message = phase, reason, "told before"
	}
}

func waitsFor(reason string) func(*v1alpha1.VolumeBackup) {
	return func(j *v1alpha1.VolumeBackup) {
		state.Apply(&j.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseAccepted, Reason: reason, Message: "m"}, created)
	}
}

func attempts(n int32) func(*v1alpha1.VolumeBackup) {
	return func(j *v1alpha1.VolumeBackup) { j.Status.Attempts = n }
}

func interruptions(n int32) func(*v1alpha1.VolumeBackup) {
	return func(j *v1alpha1.VolumeBackup) { j.Status.Interruptions = n }
}

func canceled(j *v1alpha1.VolumeBackup) { j.Spec.Cancel = true }

func frozen(j *v1alpha1.VolumeBackup) { j.Spec.Options.Frozen = true }

func deadline(d time.Duration) func(*v1alpha1.VolumeBackup) {
	return func(j *v1alpha1.VolumeBackup) { j.Spec.Options.Deadline = &metav1.Duration{Duration: d} }
}

func ended(attempt int32, f *state.Failure) state.Observed {
	return state.Observed{Task: state.Task{State: state.TaskEnded, Attempt: attempt, Ran: true, Ended: created.Add(time.Minute), Failure: f}}
}

func failure(reason string, retryable bool) *state.Failure {
	return &state.Failure{Finding: state.Finding{Reason: reason, Message: "put blob p1: timeout"}, Retryable: retryable}
}

func TestNextBackup(t *testing.T) {
	t.Parallel()

	var (
		running = state.Observed{Task: state.Task{State: state.TaskRunning, Attempt: 1, Ran: true}}
		queued  = state.Observed{Task: state.Task{State: state.TaskQueued, Attempt: 1}}
		told    = func(ago time.Duration) state.Observed {
			return state.Observed{Task: state.Task{State: state.TaskRunning, Attempt: 1, CancelRequested: created.Add(time.Minute - ago)}}
		}
		finding = &state.Finding{Reason: state.ReasonPodReplaced, Message: "pod a/b"}
		gone    = &state.Finding{Reason: state.ReasonPodDeleted, Message: "pod a/b is being deleted"}
		notYet  = &state.Failure{Finding: state.Finding{Reason: state.ReasonVolumeNotMounted, Message: "pv"}, NotYet: true}
	)

	at := created.Add(time.Minute)

	for name, c := range map[string]struct {
		job    *v1alpha1.VolumeBackup
		seen   state.Observed
		at     time.Time
		phase  v1alpha1.Phase
		reason string
		action state.Action
		after  time.Duration
	}{
		"a new job is accepted and started": {job: backup(), phase: v1alpha1.PhaseAccepted, reason: state.ReasonAccepted, action: state.ActionStart, after: 2 * time.Second},
		"an accepted job that this process doesn't know is started": {
			job:   backup(in(v1alpha1.PhaseAccepted, state.ReasonQueued)),
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonAccepted, action: state.ActionStart, after: 2 * time.Second,
		},
		"a running job that this process doesn't know is resumed": {
			job:   backup(in(v1alpha1.PhaseInProgress, state.ReasonRunning), attempts(1)),
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonResumed, action: state.ActionStart, after: 2 * time.Second,
		},
		"a run that ended with its daemon was no attempt": {
			job:   backup(in(v1alpha1.PhaseInProgress, state.ReasonRunning), attempts(3)),
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonResumed, action: state.ActionStart, after: 2 * time.Second,
		},
		"neither was one that was stopped for the daemon's end": {
			job:   backup(in(v1alpha1.PhaseInProgress, state.ReasonDraining), attempts(3), interruptions(2)),
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonResumed, action: state.ActionStart, after: 2 * time.Second,
		},
		"a job is not resumed for ever": {
			job:   backup(in(v1alpha1.PhaseInProgress, state.ReasonRunning), attempts(11), interruptions(10)),
			phase: v1alpha1.PhaseFailed, reason: state.ReasonAttemptsExhausted,
		},
		"a job that waited for its next attempt when the daemon ended has lost nothing": {
			job:   backup(in(v1alpha1.PhaseInProgress, "StoreStalled"), attempts(2)),
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonResumed, action: state.ActionStart, after: 2 * time.Second,
		},
		"attempts that ended with their daemon leave room for others": {
			job: backup(in(v1alpha1.PhaseInProgress, state.ReasonRunning), attempts(4), interruptions(2)), seen: ended(4, failure("StoreStalled", true)),
			phase: v1alpha1.PhaseInProgress, reason: "StoreStalled", after: 80 * time.Second,
		},
		"but not for more than there are": {
			job: backup(in(v1alpha1.PhaseInProgress, state.ReasonRunning), attempts(5), interruptions(2)), seen: ended(5, failure("StoreStalled", true)),
			phase: v1alpha1.PhaseFailed, reason: "StoreStalled",
		},
		"a job that was queued when its daemon ended is queued still": {
			job:   backup(in(v1alpha1.PhaseAccepted, state.ReasonQueued)),
			seen:  state.Observed{Task: state.Task{State: state.TaskEnded, Failure: &state.Failure{Drained: true}}},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonQueued,
		},
		"a mismatch found before the start fails the job": {job: backup(), seen: state.Observed{Permanent: finding}, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodReplaced},
		"something that may come is waited for": {
			job: backup(), seen: state.Observed{Waiting: finding},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonPodReplaced, after: 500 * time.Millisecond,
		},
		"something that may come is not waited for beyond the bound": {
			job: backup(waitsFor(state.ReasonPodReplaced)), seen: state.Observed{Waiting: finding}, at: created.Add(5 * time.Minute),
			phase: v1alpha1.PhaseFailed, reason: state.ReasonPodReplaced,
		},
		"a queued job waits": {job: backup(), seen: queued, phase: v1alpha1.PhaseAccepted, reason: state.ReasonQueued, after: 5 * time.Second},
		"a job that waits for another of its volume says so": {
			job: backup(waitsFor(state.ReasonVolumeNotMounted)), seen: state.Observed{Task: state.Task{State: state.TaskQueued, Attempt: 1, Behind: "vb-0"}},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonVolumeBusy, after: 5 * time.Second,
		},
		"a cancelled job does not wait for another of its volume": {
			job: backup(canceled), seen: state.Observed{Task: state.Task{State: state.TaskQueued, Attempt: 1, Behind: "vb-0"}},
			phase: v1alpha1.PhaseCanceling, reason: state.ReasonCancelRequested, action: state.ActionCancel, after: 30 * time.Second,
		},
		"a job that is queued once more does not go back": {
			job: backup(in(v1alpha1.PhaseInProgress, "StoreStalled"), attempts(1)), seen: queued,
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonQueued, after: 5 * time.Second,
		},
		"a running job is in progress": {
			job: backup(in(v1alpha1.PhaseAccepted, state.ReasonQueued)), seen: running,
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonRunning, after: 2 * time.Second,
		},
		"a mismatch while the worker runs does not matter": {
			job: backup(), seen: state.Observed{Task: running.Task, Permanent: finding},
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonRunning, after: 2 * time.Second,
		},
		"a result completes the job":                 {job: backup(in(v1alpha1.PhaseInProgress, state.ReasonRunning)), seen: ended(1, nil), phase: v1alpha1.PhaseCompleted, reason: state.ReasonCompleted},
		"a permanent failure fails the job at once":  {job: backup(), seen: ended(1, failure("WrongKey", false)), phase: v1alpha1.PhaseFailed, reason: "WrongKey"},
		"a retryable failure is waited out at first": {job: backup(attempts(1)), seen: ended(1, failure("StoreStalled", true)), phase: v1alpha1.PhaseAccepted, reason: "StoreStalled", after: 10 * time.Second},
		"a retryable failure is tried again after the wait": {
			job: backup(in(v1alpha1.PhaseInProgress, "StoreStalled"), attempts(1)), seen: ended(1, failure("StoreStalled", true)), at: at.Add(10 * time.Second),
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonAccepted, action: state.ActionStart, after: 2 * time.Second,
		},
		"the wait doubles": {
			job: backup(attempts(2)), seen: ended(2, failure("StoreStalled", true)), at: at.Add(10 * time.Second),
			phase: v1alpha1.PhaseAccepted, reason: "StoreStalled", after: 10 * time.Second,
		},
		"the third retryable failure is the last": {job: backup(attempts(3)), seen: ended(3, failure("StoreStalled", true)), phase: v1alpha1.PhaseFailed, reason: "StoreStalled"},
		"a retry looks at the pod again": {
			job: backup(attempts(1)), seen: state.Observed{Task: ended(1, failure("StoreStalled", true)).Task, Permanent: finding}, at: at.Add(time.Minute),
			phase: v1alpha1.PhaseFailed, reason: state.ReasonPodReplaced,
		},
		"a volume that is not mounted yet is looked for soon": {job: backup(), seen: ended(1, notYet), phase: v1alpha1.PhaseAccepted, reason: state.ReasonVolumeNotMounted, after: 500 * time.Millisecond},
		"a volume that is not mounted yet is tried again": {
			job: backup(), seen: ended(1, notYet), at: at.Add(time.Second),
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonVolumeNotMounted, action: state.ActionStart, after: 500 * time.Millisecond,
		},
		"looking again keeps the reason, and so the bound": {
			job: backup(waitsFor(state.ReasonVolumeNotMounted)), seen: queued,
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonVolumeNotMounted, after: 5 * time.Second,
		},
		"the time in the queue does not count as waiting for the volume": {
			job: backup(waitsFor(state.ReasonQueued)), seen: ended(1, notYet), at: created.Add(time.Hour),
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonVolumeNotMounted, action: state.ActionStart, after: 500 * time.Millisecond,
		},
		"a volume that never gets mounted fails the job": {job: backup(waitsFor(state.ReasonVolumeNotMounted)), seen: ended(1, notYet), at: created.Add(5 * time.Minute), phase: v1alpha1.PhaseFailed, reason: state.ReasonVolumeNotMounted},
		"a drained run is left for the next daemon": {
			job: backup(in(v1alpha1.PhaseInProgress, state.ReasonRunning)), seen: ended(1, &state.Failure{Drained: true}),
			phase: v1alpha1.PhaseInProgress, reason: state.ReasonDraining,
		},

		"a cancelled job that has not begun is canceled": {job: backup(canceled), phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelRequested},
		"a cancelled running job is told to stop": {
			job: backup(canceled), seen: running, phase: v1alpha1.PhaseCanceling, reason: state.ReasonCancelRequested,
			action: state.ActionCancel, after: 30 * time.Second,
		},
		"a cancelled queued job is told to stop": {
			job: backup(canceled), seen: queued, phase: v1alpha1.PhaseCanceling, reason: state.ReasonCancelRequested,
			action: state.ActionCancel, after: 30 * time.Second,
		},
		"a cancelled job that was told is waited for": {
			job: backup(canceled, in(v1alpha1.PhaseCanceling, state.ReasonCancelRequested)), seen: told(10 * time.Second),
			phase: v1alpha1.PhaseCanceling, reason: state.ReasonCancelRequested, after: 20 * time.Second,
		},
		"a cancelled job that doesn't stop in time is ended by force": {
			job: backup(canceled, in(v1alpha1.PhaseCanceling, state.ReasonCancelRequested)), seen: told(30 * time.Second),
			phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelTimedOut, action: state.ActionKill,
		},
		"a cancelled job that stopped is canceled":               {job: backup(canceled), seen: ended(1, failure("Canceled", false)), phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelRequested},
		"a cancelled job that was done before it was told is so": {job: backup(canceled), seen: ended(1, nil), phase: v1alpha1.PhaseCompleted, reason: state.ReasonCompleted},
		"a canceling job whose daemon restarted is canceled":     {job: backup(canceled, in(v1alpha1.PhaseCanceling, state.ReasonCancelRequested)), phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelRequested},

		"a pod that is being deleted stops the run": {
			job: backup(), seen: state.Observed{Task: running.Task, PodGone: gone},
			phase: v1alpha1.PhaseCanceling, reason: state.ReasonPodDeleted, action: state.ActionCancel, after: 30 * time.Second,
		},
		"a run stopped for its pod ends failed with that reason": {
			job: backup(in(v1alpha1.PhaseCanceling, state.ReasonPodDeleted)), seen: ended(1, failure("Canceled", false)),
			phase: v1alpha1.PhaseFailed, reason: state.ReasonPodDeleted,
		},
		"a job whose pod is going is not begun": {job: backup(), seen: state.Observed{PodGone: gone}, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodDeleted},

		"a deadline ahead shortens the wait": {job: backup(deadline(61 * time.Second)), seen: running, phase: v1alpha1.PhaseInProgress, reason: state.ReasonRunning, after: time.Second},
		"a deadline ahead wakes a queued job": {
			job: backup(deadline(63 * time.Second)), seen: queued, phase: v1alpha1.PhaseAccepted, reason: state.ReasonQueued,
			after: 3 * time.Second,
		},
		"a passed deadline stops the run": {
			job: backup(deadline(time.Minute)), seen: running, phase: v1alpha1.PhaseCanceling, reason: state.ReasonDeadlineExceeded,
			action: state.ActionCancel, after: 30 * time.Second,
		},
		"a passed deadline fails a job that has not begun": {job: backup(deadline(time.Minute)), phase: v1alpha1.PhaseFailed, reason: state.ReasonDeadlineExceeded},
		"a frozen job has a bound of its own": {
			job: backup(frozen), seen: running, at: created.Add(10 * time.Minute), phase: v1alpha1.PhaseCanceling,
			reason: state.ReasonFreezeExceeded, action: state.ActionCancel, after: 30 * time.Second,
		},
		"a frozen job keeps to its deadline": {
			job: backup(frozen, deadline(time.Minute)), seen: running, phase: v1alpha1.PhaseCanceling,
			reason: state.ReasonFreezeExceeded, action: state.ActionCancel, after: 30 * time.Second,
		},
		"a job that is cancelled because its deadline has passed says so": {
			job: backup(frozen, deadline(time.Minute), canceled), seen: running, phase: v1alpha1.PhaseCanceling,
			reason: state.ReasonFreezeExceeded, action: state.ActionCancel, after: 30 * time.Second,
		},
		"and still does when it has stopped": {
			job:  backup(frozen, deadline(time.Minute), canceled, in(v1alpha1.PhaseCanceling, state.ReasonFreezeExceeded)),
			seen: ended(1, failure("Canceled", false)), phase: v1alpha1.PhaseFailed, reason: state.ReasonFreezeExceeded,
		},
		"a job that was cancelled before its deadline has passed says that": {
			job:  backup(frozen, deadline(time.Minute), canceled, in(v1alpha1.PhaseCanceling, state.ReasonCancelRequested)),
			seen: ended(1, failure("Canceled", false)), phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelRequested,
		},
		"a frozen job within its bound runs": {job: backup(frozen), seen: running, phase: v1alpha1.PhaseInProgress, reason: state.ReasonRunning, after: 2 * time.Second},

		"a completed job is never left":               {job: backup(in(v1alpha1.PhaseCompleted, "Completed"), canceled), seen: ended(1, failure("WrongKey", false)), phase: v1alpha1.PhaseCompleted, reason: "Completed"},
		"a failed job is never left":                  {job: backup(in(v1alpha1.PhaseFailed, "NodeLost")), seen: ended(1, nil), phase: v1alpha1.PhaseFailed, reason: "NodeLost"},
		"a canceled job is never left":                {job: backup(in(v1alpha1.PhaseCanceled, "CancelRequested")), phase: v1alpha1.PhaseCanceled, reason: "CancelRequested"},
		"a job that others ended is ended here, too":  {job: backup(in(v1alpha1.PhaseFailed, "NodeLost")), seen: running, phase: v1alpha1.PhaseFailed, reason: "NodeLost", action: state.ActionKill},
		"a queued job that others ended doesn't wait": {job: backup(in(v1alpha1.PhaseFailed, "NodeLost")), seen: queued, phase: v1alpha1.PhaseFailed, reason: "NodeLost", action: state.ActionKill},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			now := c.at
			if now.IsZero() {
				now = at
			}

			if c.action == "" {
				c.action = state.ActionNone
			}

			d := state.NextBackup(c.job, c.seen, now, state.DefaultBounds())
			assert.Equal(t, c.phase, d.Phase)
			assert.Equal(t, c.reason, d.Reason)
			assert.Equal(t, c.action, d.Action)
			assert.Equal(t, c.after, d.RequeueAfter)
		})
	}
}

// Daemons are restarted for every release of the product, and nodes for every one of the kernel.
func TestOrdinaryRestartsUseNoAttemptUp(t *testing.T) {
	t.Parallel()

	b := state.DefaultBounds()
	job := backup()

	for restart := range b.Restarts {
		d := state.NextBackup(job, state.Observed{}, created, b)
		assert.Equal(t, state.ActionStart, d.Action, "restart %d", restart)
		state.Apply(&job.Status.JobStatus, d, created)

		running := state.Observed{Task: state.Task{State: state.TaskRunning, Attempt: job.Status.Attempts + 1, Ran: true}}
		state.Apply(&job.Status.JobStatus, state.NextBackup(job, running, created, b), created)

		job.Status.Attempts++
	}

	assert.Equal(t, b.Restarts-1, job.Status.Interruptions)
	assert.Equal(t, state.ActionStart, state.NextBackup(job, state.Observed{}, created, b).Action)

	// The attempts that failures are bounded by are all there.
	failed := state.NextBackup(job, ended(job.Status.Attempts, failure("StoreStalled", true)), created, b)
	assert.False(t, failed.Phase.Terminal())
}

func TestNextRestoreSharesTheMachine(t *testing.T) {
	t.Parallel()

	job := &v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created)}}
	d := state.NextRestore(job, state.Observed{}, created, state.DefaultBounds())
	assert.Equal(t, state.ActionStart, d.Action)

	job.Spec.Cancel = true
	d = state.NextRestore(job, state.Observed{}, created, state.DefaultBounds())
	assert.Equal(t, v1alpha1.PhaseCanceled, d.Phase)
}

func TestNextDeletion(t *testing.T) {
	t.Parallel()

	missing := &state.Finding{Reason: state.ReasonLocationNotFound, Message: "no location"}

	for name, c := range map[string]struct {
		attempts int32
		phase    v1alpha1.Phase
		seen     state.Observed
		at       time.Time
		want     v1alpha1.Phase
		reason   string
		action   state.Action
		after    time.Duration
	}{
		"a new one is started":                         {want: v1alpha1.PhaseAccepted, reason: state.ReasonAccepted, action: state.ActionStart, after: 2 * time.Second},
		"a running one is in progress":                 {seen: state.Observed{Task: state.Task{State: state.TaskRunning}}, want: v1alpha1.PhaseInProgress, reason: state.ReasonRunning, after: 2 * time.Second},
		"a queued one waits":                           {seen: state.Observed{Task: state.Task{State: state.TaskQueued}}, want: v1alpha1.PhaseAccepted, reason: state.ReasonQueued, after: 5 * time.Second},
		"a confirmed one is completed":                 {seen: ended(1, nil), want: v1alpha1.PhaseCompleted, reason: state.ReasonCompleted},
		"a permanent failure is tried again, too":      {attempts: 1, seen: ended(1, failure("WrongKey", false)), want: v1alpha1.PhaseAccepted, reason: "WrongKey", after: 10 * time.Second},
		"the hundredth failure is tried in an hour":    {attempts: 100, seen: ended(1, failure("WrongKey", false)), want: v1alpha1.PhaseAccepted, reason: "WrongKey", after: time.Hour},
		"after the wait it is started again":           {attempts: 1, seen: ended(1, failure("WrongKey", false)), at: created.Add(2 * time.Minute), want: v1alpha1.PhaseAccepted, reason: state.ReasonAccepted, action: state.ActionStart, after: 2 * time.Second},
		"a missing location is looked for slowly":      {seen: state.Observed{Permanent: missing}, want: v1alpha1.PhaseAccepted, reason: state.ReasonLocationNotFound, after: time.Minute},
		"a missing location is given up after a week":  {seen: state.Observed{Permanent: missing}, at: created.Add(7 * 24 * time.Hour), want: v1alpha1.PhaseFailed, reason: state.ReasonLocationNotFound},
		"so is a missing repository":                   {attempts: 9, seen: ended(9, failure("RepositoryNotFound", false)), at: created.Add(7 * 24 * time.Hour), want: v1alpha1.PhaseFailed, reason: "RepositoryNotFound"},
		"and nothing else":                             {attempts: 100, seen: ended(1, failure("WrongKey", false)), at: created.Add(8 * 24 * time.Hour), want: v1alpha1.PhaseAccepted, reason: state.ReasonAccepted, action: state.ActionStart, after: 2 * time.Second},
		"a snapshot that is still taken is waited for": {seen: state.Observed{Waiting: missing}, want: v1alpha1.PhaseAccepted, reason: state.ReasonLocationNotFound, after: 5 * time.Second},
		"a completed one is never left":                {phase: v1alpha1.PhaseCompleted, want: v1alpha1.PhaseCompleted},
		"one that nobody runs any more starts afresh":  {phase: v1alpha1.PhaseInProgress, attempts: 50, want: v1alpha1.PhaseInProgress, reason: state.ReasonAccepted, action: state.ActionStart, after: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := &v1alpha1.SnapshotDeletion{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created)}}
			job.Status.Phase, job.Status.Attempts = c.phase, c.attempts

			if c.at.IsZero() {
				c.at = created.Add(time.Minute)
			}

			if c.action == "" {
				c.action = state.ActionNone
			}

			d := state.NextDeletion(job, c.seen, c.at, state.DefaultBounds())
			assert.Equal(t, c.want, d.Phase)
			assert.Equal(t, c.reason, d.Reason)
			assert.Equal(t, c.action, d.Action)
			assert.Equal(t, c.after, d.RequeueAfter)
		})
	}
}
