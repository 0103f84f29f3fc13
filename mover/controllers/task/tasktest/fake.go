// Package tasktest is a task.Tasks for tests of controllers: it runs nothing,
// and stands where the test puts it.
package tasktest

import (
	"sync"
	"time"

	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/state"
)

// Fake is a registry of runs that never run.
type Fake struct {
	mu     sync.Mutex
	runs   map[string]task.Run
	begun  map[string][]task.Work
	ended  map[string][]task.Ending
	nowFun func() time.Time
}

var _ task.Tasks = (*Fake)(nil)

// New returns an empty registry with the time of now.
func New(now func() time.Time) *Fake {
	return &Fake{runs: map[string]task.Run{}, begun: map[string][]task.Work{}, ended: map[string][]task.Ending{}, nowFun: now}
}

// Begin notes the work and queues it.
func (f *Fake) Begin(key string, w task.Work) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if r, ok := f.runs[key]; ok && r.State != state.TaskEnded {
		return
	}

	f.begun[key] = append(f.begun[key], w)
	f.runs[key] = task.Run{UID: w.UID, Task: state.Task{State: state.TaskQueued, Attempt: w.Attempt}, Position: 1}
}

// Look returns the run.
func (f *Fake) Look(key string) (task.Run, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.runs[key]

	return r, ok
}

// End notes the ending. Forget removes the run, Cancel marks it, Abort ends it.
func (f *Fake) End(key string, how task.Ending) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.ended[key] = append(f.ended[key], how)

	r, ok := f.runs[key]
	if !ok {
		return
	}

	switch how {
	case task.Forget:
		delete(f.runs, key)
	case task.Cancel:
		if r.CancelRequested.IsZero() {
			r.CancelRequested = f.nowFun()
		}

		f.runs[key] = r
	case task.Abort:
		r.State, r.Ended = state.TaskEnded, f.nowFun()
		r.Failure = &state.Failure{Finding: state.Finding{Reason: "Canceled", Message: "aborted"}}
		f.runs[key] = r
	}
}

// Set changes a run.
func (f *Fake) Set(key string, change func(*task.Run)) {
	f.mu.Lock()
	defer f.mu.Unlock()

	r := f.runs[key]
	change(&r)
	f.runs[key] = r
}

// Begun returns all work that was begun under the key.
func (f *Fake) Begun(key string) []task.Work {
	f.mu.Lock()
	defer f.mu.Unlock()

	return append([]task.Work(nil), f.begun[key]...)
}

// Ended returns all endings that were asked for under the key.
func (f *Fake) Ended(key string) []task.Ending {
	f.mu.Lock()
	defer f.mu.Unlock()

	return append([]task.Ending(nil), f.ended[key]...)
}
