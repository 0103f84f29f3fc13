package cluster

import (
	"fmt"
	"io"
	"time"
)

// progress shows a person what is being done: a line per step, with the time since the start.
type progress struct {
	out   io.Writer
	now   func() time.Time
	start time.Time
}

func newProgress(out io.Writer, now func() time.Time) *progress {
	return &progress{out: out, now: now, start: now()}
}

// step announces what is done next and, if known, how long it takes and how long everything after it.
func (p *progress) step(what string, estimate, rest time.Duration) {
	about := ""
	switch {
	case estimate > 0 && rest > 0:
		about = fmt.Sprintf(" (about %s, then %s more)", estimate, rest)
	case estimate > 0:
		about = fmt.Sprintf(" (about %s)", estimate)
	}
	p.line(what + about)
}

func (p *progress) line(text string) {
	elapsed := p.now().Sub(p.start)
	_, _ = fmt.Fprintf(p.out, "[%3d:%02d] %s\n", int(elapsed.Minutes()), int(elapsed.Seconds())%60, text)
}
