package operation

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/jobs"
)

// The pace of looking at jobs.
const (
	// Fresh is how long a list of jobs serves further questions: Velero asks
	// for each operation by itself, and one list answers them all.
	Fresh = time.Second
	// Pace is how often jobs are looked at while somebody waits for them.
	Pace = 150 * time.Millisecond
	// HoldBudget is how long one process may hold Velero's last question of a
	// run, in all. Velero asks operation by operation, and its next look comes up to
	// 10 s later (measured with Velero 1.18.3): to hold for longer gains nothing.
	HoldBudget = 10 * time.Second
	// NearlyDone is how many bytes may be missing for a job to be worth holding
	// for: some seconds of an ordinary upload.
	NearlyDone = 1 << 30
)

// Lister lists the jobs of one Backup or Restore in one call, by name.
type Lister func(ctx context.Context, owner string) (map[string]jobs.Progress, error)

// Poll answers questions about jobs from lists that are a moment old at most,
// and waits for jobs. It may be used by many goroutines at once.
type Poll struct {
	clock clock.Clock
	list  Lister

	mu     sync.Mutex
	seen   map[string]snapshot
	warned map[string]bool
	budget time.Duration
}

type snapshot struct {
	at   time.Time
	jobs map[string]jobs.Progress
}

// NewPoll returns a Poll with a whole budget.
func NewPoll(c clock.Clock, list Lister) *Poll {
	return &Poll{clock: c, list: list, seen: map[string]snapshot{}, warned: map[string]bool{}, budget: HoldBudget}
}

// Jobs returns the jobs of the owner as they were at most maxAge ago.
func (p *Poll) Jobs(ctx context.Context, owner string, maxAge time.Duration) (map[string]jobs.Progress, error) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if s, ok := p.seen[owner]; ok && p.clock.Since(s.at) < maxAge {
		return s.jobs, nil
	}

	found, err := p.list(ctx, owner)
	if err != nil {
		return nil, err
	}

	p.seen[owner] = snapshot{at: p.clock.Now(), jobs: found}

	return found, nil
}

// Wait looks at the owner's jobs until done says so, or ctx ends. An API
// server that doesn't answer is asked again. It gives what it saw last.
func (p *Poll) Wait(ctx context.Context, owner string, done func(map[string]jobs.Progress) bool) map[string]jobs.Progress {
	var last map[string]jobs.Progress

	for {
		if found, err := p.Jobs(ctx, owner, Pace); err == nil {
			last = found
			if done(found) {
				return found
			}
		}

		timer := p.clock.NewTimer(Pace)

		select {
		case <-ctx.Done():
			timer.Stop()

			return last
		case <-timer.C():
		}
	}
}

// Hold waits for the operation's jobs as long as they are nearly done and the
// process has budget left. It gives what it saw last; nil if it saw nothing.
func (p *Poll) Hold(ctx context.Context, owner string, id ID) map[string]jobs.Progress {
	began := p.clock.Now()
	budget := p.take()

	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()

	last := p.Wait(ctx, owner, func(found map[string]jobs.Progress) bool {
		return p.clock.Since(began) >= budget || Ended(id, found) || !near(id, found)
	})

	p.spend(p.clock.Since(began))

	return last
}

func (p *Poll) take() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.budget
}

func (p *Poll) spend(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.budget = max(0, p.budget-d)
}

// Report returns what Velero is told of the operation, and has warn be called with what is to
// be warned of when it is over: once for each job, which several operations may report.
func (p *Poll) Report(o Observed, warn func(text string)) velero.OperationProgress {
	progress := Progress(o)
	if !progress.Completed {
		return progress
	}

	warnings := Warnings(o)
	for _, job := range slices.Sorted(maps.Keys(warnings)) {
		if p.first(job) {
			warn(warnings[job])
		}
	}

	return progress
}

// first reports whether the job is one that was not warned of yet.
func (p *Poll) first(job string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.warned[job] {
		return false
	}

	p.warned[job] = true

	return true
}

// Ended reports whether all jobs of the operation were found and have ended.
func Ended(id ID, found map[string]jobs.Progress) bool {
	for _, name := range id.Jobs {
		if job, ok := found[name]; !ok || !job.Phase.Terminal() {
			return false
		}
	}

	return true
}

// near reports whether no unfinished job is known to have much left to do.
func near(id ID, found map[string]jobs.Progress) bool {
	for _, name := range id.Jobs {
		if job, ok := found[name]; ok && !job.Phase.Terminal() && job.BytesTotal-job.BytesDone > NearlyDone {
			return false
		}
	}

	return true
}
