package runner

import (
	"slices"
	"sync"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// pool is the memory of all workers together. Each may use its ceiling in any case, and
// beyond that what the others leave. Once there is no more, those go first that use
// more than their ceilings. (While more workers run than were planned, for the sake of frozen jobs, the ceilings add up
// to more than there is, and one goes that has not gone beyond its own.)
type pool struct {
	// total is in bytes; 0 is no bound.
	total int64

	mu   sync.Mutex
	used []*share
}

// share is what one worker uses; guarded by pool.mu.
type share struct {
	frozen bool
	// ceiling is what the worker may use whatever others do, in bytes.
	ceiling int64
	bytes   int64
	// stuck says that the worker was killed and doesn't end: its memory is used, and can't be had back.
	stuck bool
}

// pressure is how urgently a worker has to give its memory back.
type pressure int

const (
	// fits says that there is room.
	fits pressure = iota
	// tight says that the worker is to write down what it has, and end.
	tight
	// over says that it has to end at once.
	over
)

// nearly is where a worker is asked to end, so that it can write down what it has before it has to go. That takes
// memory, too.
func nearly(bytes int64) int64 { return bytes / 8 * 7 }

func (p *pool) join(frozen bool, ceiling int64) *share {
	p.mu.Lock()
	defer p.mu.Unlock()

	s := &share{frozen: frozen, ceiling: ceiling}
	p.used = append(p.used, s)

	return s
}

func (p *pool) leave(s *share) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.used = slices.DeleteFunc(p.used, func(o *share) bool { return o == s })
}

// abandon leaves the memory of a worker that doesn't end counted as used.
func (p *pool) abandon(s *share) {
	p.mu.Lock()
	defer p.mu.Unlock()

	s.stuck = true
}

// take notes what a worker uses, in bytes. It gives what all use together, and whether there is still room for this one.
func (p *pool) take(s *share, bytes int64) (together int64, q pressure) {
	p.mu.Lock()
	defer p.mu.Unlock()

	s.bytes = bytes

	var first *share

	for _, o := range p.used {
		together += o.bytes

		if !o.stuck && (first == nil || o.before(first)) {
			first = o
		}
	}

	switch {
	case p.total <= 0 || first != s:
		return together, fits
	case together > p.total:
		return together, over
	case together > nearly(p.total) && s.beyond():
		return together, tight
	default:
		return together, fits
	}
}

// beyond reports whether the worker uses all that it may in any case, or more.
func (s *share) beyond() bool { return s.bytes > nearly(s.ceiling) }

// before reports whether the worker is to go before one that began earlier: whoever has gone beyond
// its ceiling goes first, and the furthest of them; then the one that began last, because it loses least by it. In both cases one that
// nobody is frozen for goes before any other.
func (s *share) before(earlier *share) bool {
	switch {
	case s.beyond() != earlier.beyond():
		return s.beyond()
	case s.frozen != earlier.frozen:
		return !s.frozen
	case s.beyond():
		return s.bytes-s.ceiling >= earlier.bytes-earlier.ceiling
	default:
		return true
	}
}

// spent is the memory for which a worker had to end, in bytes.
type spent struct {
	// used by the worker, and by all workers together.
	used, together int64
	// beyond says that it used all of its ceiling.
	beyond bool
}

// err says why the worker had to end.
func (m *spent) err(verb protocol.Verb, r protocol.Request) error {
	if !m.beyond {
		return engine.Errorf(engine.CodeWorkerDied,
			"%s: the worker was ended to make room, as the one that began last: all workers together used %d MiB of memory, and %d MiB are theirs, with more of them than slots because applications are frozen: raise the container's memory limit",
			verb, m.together>>20, r.MemoryMost>>20)
	}

	return engine.Errorf(engine.CodeMemoryExceeded,
		"%s: the worker used %d MiB of memory and was ended; its ceiling is %d MiB, and all workers together used %d MiB of the %d MiB that are theirs: raise the container's memory limit or use fewer slots",
		verb, m.used>>20, r.MemoryCeiling>>20, m.together>>20, r.MemoryMost>>20)
}
