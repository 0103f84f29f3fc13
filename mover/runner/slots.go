package runner

import (
	"context"
	"slices"
	"sync"
)

// slots are the places for running workers. A frozen job does not wait for any: it
// begins at once, and as long as more of them run than places are reserved for, no
// other job begins that would take what they use. Only where the memory has no
// room for even the smallest worker more does a frozen job wait, before all others.
type slots struct {
	changed func(running, queued int)
	// free is how many jobs that are not frozen may run, and reserved how many frozen ones beside them.
	free, reserved int
	// most is how many may run at all; 0 is no bound.
	most int

	mu               sync.Mutex
	ordinary, frozen int
	queue            []*waiter
}

type waiter struct {
	frozen bool
	// place takes the newest place in the queue; 0 says that the slot is there.
	place chan int
	// given is the place that the waiter holds, once it has one; guarded by slots.mu.
	given *slot
}

// slot is a taken place.
type slot struct {
	// running is how many ran when it was taken, this one included.
	running int
	// release gives it back; it may be called more than once.
	release func()
}

func newSlots(c Config) *slots {
	s := &slots{free: c.Slots, reserved: c.Reserved, changed: c.Metrics.Workers}
	if c.MemoryCeiling > 0 {
		s.most = max(c.planned(), int(c.memory()/minimumCeiling))
	}

	return s
}

// acquire waits for a slot. queued is called with each new place in the queue. The error is the cause of ctx.
func (s *slots) acquire(ctx context.Context, frozen bool, queued func(place int)) (*slot, error) {
	w := &waiter{frozen: frozen, place: make(chan int, 1)}
	s.enqueue(w)

	for {
		select {
		case <-ctx.Done():
			s.leave(w)
			return nil, context.Cause(ctx)
		case place := <-w.place:
			if place == 0 {
				return w.given, nil
			}

			queued(place)
		}
	}
}

func (s *slots) enqueue(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()

	at := len(s.queue)
	if w.frozen {
		if i := slices.IndexFunc(s.queue, func(o *waiter) bool { return !o.frozen }); i >= 0 {
			at = i
		}
	}

	s.queue = slices.Insert(s.queue, at, w)
	s.settle()
}

// leave takes a waiter out, also where it was given a slot in the meantime.
func (s *slots) leave(w *waiter) {
	s.mu.Lock()
	given := w.given
	s.queue = slices.DeleteFunc(s.queue, func(o *waiter) bool { return o == w })
	s.settle()
	s.mu.Unlock()

	if given != nil {
		given.release()
	}
}

// begin counts a job in, if it may run.
func (s *slots) begin(frozen bool) *slot {
	running := s.ordinary + s.frozen

	switch {
	case frozen && (s.most == 0 || running < s.most):
		s.frozen++
	case !frozen && s.ordinary+max(0, s.frozen-s.reserved) < s.free:
		s.ordinary++
	default:
		return nil
	}

	return &slot{running: running + 1, release: sync.OnceFunc(func() { s.end(frozen) })}
}

func (s *slots) end(frozen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if frozen {
		s.frozen--
	} else {
		s.ordinary--
	}

	s.settle()
}

// settle lets begin what may, in the order of the queue, and tells the others
// their places.
func (s *slots) settle() {
	for len(s.queue) > 0 {
		w := s.queue[0]
		if w.given = s.begin(w.frozen); w.given == nil {
			break
		}

		s.queue = s.queue[1:]
		w.tell(0)
	}

	for i, w := range s.queue {
		w.tell(i + 1)
	}

	s.changed(s.ordinary+s.frozen, len(s.queue))
}

// tell replaces what the waiter has not yet taken. There is one sender at a time.
func (w *waiter) tell(place int) {
	select {
	case <-w.place:
	default:
	}

	w.place <- place
}
