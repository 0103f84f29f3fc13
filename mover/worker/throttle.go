package worker

import (
	"sync"
	"time"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// throttle passes progress on, at most once in progressInterval.
type throttle struct {
	report *protocol.Reporter
	now    func() time.Time

	mu     sync.Mutex
	last   time.Time
	held   engine.Progress
	behind bool
}

func newThrottle(report *protocol.Reporter, now func() time.Time) *throttle {
	return &throttle{report: report, now: now}
}

func (t *throttle) take(p engine.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.held, t.behind = p, true

	if now := t.now(); now.Sub(t.last) >= progressInterval {
		t.last = now
		t.send()
	}
}

// flush passes on what was held back.
func (t *throttle) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()

	if t.behind {
		t.send()
	}
}

// send ignores errors: the result goes the same way, and its error is not ignored.
func (t *throttle) send() {
	p := t.held
	t.behind = false
	_ = t.report.Report(protocol.Report{Progress: &p})
}
