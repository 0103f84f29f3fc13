package runner

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// State is how far a task has come.
type State string

// The states of a task.
const (
	Queued  State = "Queued"
	Running State = "Running"
	Done    State = "Done"
)

// Status is what is known of a task.
type Status struct {
	State State
	// Place where it waits; zero where it does not.
	Place    Place
	Progress engine.Progress
	// Fences that the worker runs behind; nil while unknown.
	Fences *protocol.Fences
	// Started is when the slot was there, Ended when the worker was gone; zero before.
	Started time.Time
	Ended   time.Time
	// Result and Err are those of Run, once the task is Done.
	Result protocol.Result
	Err    error
}

// Runs is what runs a task: a Runner.
type Runs interface {
	Run(ctx context.Context, t Task, w Watch) (protocol.Result, error)
}

// Tasks keeps the tasks of controllers, which come again and again and must not
// block. It may be used by several goroutines at a time.
type Tasks struct {
	runs    Runs
	changed func(key string)
	clock   clock.PassiveClock

	mu       sync.Mutex
	tasks    map[string]*entry
	draining bool
	active   sync.WaitGroup
}

type entry struct {
	status Status
	cancel context.CancelCauseFunc
	abort  func()
}

// NewTasks makes an empty registry. changed is called after each change of a
// task's status, by the task's own goroutine and without any lock held: it may
// call Tasks, and must return quickly.
func NewTasks(runs Runs, changed func(key string), c clock.PassiveClock) *Tasks {
	return &Tasks{runs: runs, changed: changed, clock: c, tasks: map[string]*entry{}}
}

// Start runs the task, unless there is one of this key, which may be done: then
// nothing happens. It gives the status of the one that there is. While the
// registry drains, a new task is Done at once, with ErrDraining, and is not kept.
func (t *Tasks) Start(key string, task Task) Status {
	t.mu.Lock()
	defer t.mu.Unlock()

	if e, ok := t.tasks[key]; ok {
		return e.status
	}

	if t.draining {
		return Status{State: Done, Err: canceled(task.Request.Verb, ErrDraining)}
	}

	// A task outlives the reconcile that starts it; Cancel and Drain end it.
	ctx, cancel := context.WithCancelCause(context.Background())
	abort := make(chan struct{})
	task.abort = abort

	e := &entry{status: Status{State: Queued}, cancel: cancel, abort: sync.OnceFunc(func() { close(abort) })}
	t.tasks[key] = e

	t.active.Add(1)

	go t.run(ctx, key, e, task)

	return e.status
}

func (t *Tasks) run(ctx context.Context, key string, e *entry, task Task) {
	defer t.active.Done()
	defer e.cancel(nil)

	update := func(change func(*Status)) {
		t.mu.Lock()
		change(&e.status)
		t.mu.Unlock()
		t.changed(key)
	}

	result, err := t.runs.Run(ctx, task, Watch{
		Queued: func(at Place) { update(func(s *Status) { s.Place = at }) },
		Started: func() {
			update(func(s *Status) { s.State, s.Place, s.Started = Running, Place{}, t.clock.Now() })
		},
		Fences:   func(f protocol.Fences) { update(func(s *Status) { s.Fences = &f }) },
		Progress: func(p engine.Progress) { update(func(s *Status) { s.Progress = p }) },
	})

	update(func(s *Status) {
		s.State, s.Place, s.Ended = Done, Place{}, t.clock.Now()
		s.Result, s.Err = result, err
	})
}

// Status returns the status of a task; false where there is none of this key.
func (t *Tasks) Status(key string) (Status, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()

	e, ok := t.tasks[key]
	if !ok {
		return Status{}, false
	}

	return e.status, true
}

// Cancel asks a task to stop; its error will wrap ErrCanceled. Unknown and
// finished ones are left alone.
func (t *Tasks) Cancel(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()

	if e, ok := t.tasks[key]; ok {
		e.cancel(ErrCanceled)
	}
}

// Abort ends a task at once, so that its volume can be unmounted; its error will
// wrap ErrAborted, or ErrCanceled where it was told to stop before.
func (t *Tasks) Abort(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()

	if e, ok := t.tasks[key]; ok {
		e.cancel(ErrAborted)
		e.abort()
	}
}

// Forget removes a task that is done, so that its key can be used again. It
// tells whether there is none of this key now.
func (t *Tasks) Forget(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()

	e, ok := t.tasks[key]
	if ok && e.status.State != Done {
		return false
	}

	delete(t.tasks, key)

	return true
}

// Drain stops all tasks, takes no more, and waits until they have ended or ctx
// is done. Their errors wrap ErrDraining: the jobs are to be taken up again.
func (t *Tasks) Drain(ctx context.Context) error {
	t.mu.Lock()
	t.draining = true

	for _, e := range t.tasks {
		e.cancel(ErrDraining)
	}
	t.mu.Unlock()

	done := make(chan struct{})

	go func() {
		defer close(done)

		t.active.Wait()
	}()

	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the workers to end: %w", context.Cause(ctx))
	}
}
