package runner_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

// stage runs tasks only as far as the test says.
type stage struct {
	mu   sync.Mutex
	runs int
	// step takes what the running task does next.
	step chan func(runner.Watch)
	// end takes how it ends.
	end chan error
}

// Run does what the test says, until that or the context ends it.
func (s *stage) Run(ctx context.Context, _ runner.Task, w runner.Watch) (protocol.Result, error) {
	s.mu.Lock()
	s.runs++
	s.mu.Unlock()

	for {
		select {
		case <-ctx.Done():
			return protocol.Result{}, engine.Errorf(engine.CodeCanceled, "backup: %w", context.Cause(ctx))
		case do := <-s.step:
			do(w)
		case err := <-s.end:
			return protocol.Result{Forget: &engine.ForgetResult{Deleted: 3}}, err
		}
	}
}

// board is a registry before a stage.
type board struct {
	*stage

	tasks   *runner.Tasks
	changed chan string
	now     time.Time
}

func newBoard() *board {
	b := &board{
		stage:   &stage{step: make(chan func(runner.Watch)), end: make(chan error)},
		changed: make(chan string, 100),
		now:     time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	b.tasks = runner.NewTasks(b.stage, func(key string) { b.changed <- key }, clocktesting.NewFakePassiveClock(b.now))

	return b
}

func (b *board) status(t *testing.T, key string) runner.Status {
	t.Helper()

	s, ok := b.tasks.Status(key)
	require.True(t, ok, "there is a task %s", key)

	return s
}

func TestTasksFollowTheirRun(t *testing.T) {
	b := newBoard()

	assert.Equal(t, runner.Status{State: runner.Queued}, b.tasks.Start("a", runner.Task{}))

	b.step <- func(w runner.Watch) { w.Queued(runner.Place{Number: 2}) }
	assert.Equal(t, "a", <-b.changed)
	assert.Equal(t, runner.Status{State: runner.Queued, Place: runner.Place{Number: 2}}, b.status(t, "a"))

	b.step <- func(w runner.Watch) { w.Started() }
	<-b.changed

	want := runner.Status{State: runner.Running, Started: b.now}
	assert.Equal(t, want, b.status(t, "a"))

	b.step <- func(w runner.Watch) { w.Progress(engine.Progress{BytesDone: 5}) }
	<-b.changed

	want.Progress.BytesDone = 5
	assert.Equal(t, want, b.status(t, "a"))
	assert.False(t, b.tasks.Forget("a"), "a task that runs is not forgotten")

	b.end <- nil
	<-b.changed

	want.State, want.Ended = runner.Done, b.now
	want.Result = protocol.Result{Forget: &engine.ForgetResult{Deleted: 3}}
	assert.Equal(t, want, b.status(t, "a"))

	assert.Equal(t, want, b.tasks.Start("a", runner.Task{}), "a task that is done is not done again")
	assert.Equal(t, 1, b.runs)

	assert.True(t, b.tasks.Forget("a"))
	assert.True(t, b.tasks.Forget("a"), "forgetting what is forgotten is no error")
	_, ok := b.tasks.Status("a")
	assert.False(t, ok)
}

func TestTasksThatFail(t *testing.T) {
	b := newBoard()
	b.tasks.Start("a", runner.Task{})
	b.end <- engine.Errorf(engine.CodeTargetFull, "no room")
	<-b.changed

	assert.Equal(t, engine.CodeTargetFull, engine.CodeOf(b.status(t, "a").Err))
}

func TestEndingTasks(t *testing.T) {
	tests := map[string]struct {
		end  func(*testing.T, *runner.Tasks)
		want error
	}{
		"cancelled": {end: func(_ *testing.T, r *runner.Tasks) { r.Cancel("a"); r.Cancel("nobody") }, want: runner.ErrCanceled},
		"aborted":   {end: func(_ *testing.T, r *runner.Tasks) { r.Abort("a"); r.Abort("a"); r.Abort("nobody") }, want: runner.ErrAborted},
		"drained": {
			end:  func(t *testing.T, r *runner.Tasks) { assert.NoError(t, r.Drain(t.Context())) },
			want: runner.ErrDraining,
		},
		"cancelled before all is drained": {
			end:  func(t *testing.T, r *runner.Tasks) { r.Cancel("a"); assert.NoError(t, r.Drain(t.Context())) },
			want: runner.ErrCanceled,
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBoard()
			b.tasks.Start("a", runner.Task{})
			test.end(t, b.tasks)
			<-b.changed

			s := b.status(t, "a")
			assert.Equal(t, runner.Done, s.State)
			require.ErrorIs(t, s.Err, test.want)
			assert.Equal(t, engine.CodeCanceled, engine.CodeOf(s.Err))
		})
	}
}

func TestDrainTakesNoMore(t *testing.T) {
	b := newBoard()
	require.NoError(t, b.tasks.Drain(t.Context()))

	s := b.tasks.Start("late", runner.Task{})

	assert.Equal(t, runner.Done, s.State)
	require.ErrorIs(t, s.Err, runner.ErrDraining)
	_, ok := b.tasks.Status("late")
	assert.False(t, ok)
}

// stubborn is a run that does not end when its context does.
type stubborn struct{ release chan struct{} }

// Run waits for the test.
func (s stubborn) Run(context.Context, runner.Task, runner.Watch) (protocol.Result, error) {
	<-s.release
	return protocol.Result{}, nil
}

func TestDrainIsBounded(t *testing.T) {
	s := stubborn{release: make(chan struct{})}
	defer close(s.release)

	tasks := runner.NewTasks(s, func(string) {}, clocktesting.NewFakePassiveClock(time.Time{}))
	tasks.Start("a", runner.Task{})

	late := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)

	require.ErrorIs(t, tasks.Drain(ctx), late)
}

func TestAbortKillsAWorkerThatIsBeingStopped(t *testing.T) {
	r := runner.New(runner.Config{Executable: child(t), CancelGrace: time.Hour})
	changed := make(chan string, 100)
	tasks := runner.NewTasks(r, func(key string) { changed <- key }, clocktesting.NewFakePassiveClock(time.Time{}))

	tasks.Start("a", task(t, protocol.VerbBackup, workertest.Deaf))

	deadline := time.After(bound)
	cancelled, done := false, false

	for !done {
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("the worker was not ended")
		}

		s, ok := tasks.Status("a")
		require.True(t, ok)

		if s.Progress.BytesDone > 0 && !cancelled {
			cancelled = true

			tasks.Cancel("a")
			tasks.Abort("a")
		}

		done = s.State == runner.Done
		if done {
			assert.ErrorIs(t, s.Err, runner.ErrCanceled)
		}
	}
}
