package runner

import (
	"context"
	"slices"
	"sync"
)

// slots are the places for running workers. A frozen job takes a reserved place,
// or any other; where all are taken, it stands before all that are not frozen.
// Thus it never waits for a job that came earlier and has not begun, and the
// number of workers, and with it their memory, stays bounded.
type slots struct {
	changed func(running, queued int)

	mu       sync.Mutex
	free     int
	reserved int
	running  int
	queue    []*waiter
}

type waiter struct {
	frozen bool
	// place takes the newest place in the queue; 0 says that the slot is there.
	place chan int
	// given is the place that the waiter holds, once it has one; guarded by slots.mu.
	given *slot
}

// slot is a taken place.
type slot struct{ reserved bool }

func newSlots(free, reserved int, changed func(running, queued int)) *slots {
	return &slots{free: free, reserved: reserved, changed: changed}
}

// acquire waits for a slot, and gives what releases it. queued is called with
// each new place in the queue. The error is the cause of ctx.
func (s *slots) acquire(ctx context.Context, frozen bool, queued func(place int)) (func(), error) {
	w := &waiter{frozen: frozen, place: make(chan int, 1)}
	s.enqueue(w)

	for {
		select {
		case <-ctx.Done():
			s.leave(w)
			return nil, context.Cause(ctx)
		case place := <-w.place:
			if place == 0 {
				return sync.OnceFunc(func() { s.release(w.given) }), nil
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
	defer s.mu.Unlock()

	if w.given != nil {
		s.put(w.given)
	} else {
		s.queue = slices.DeleteFunc(s.queue, func(o *waiter) bool { return o == w })
	}

	s.settle()
}

func (s *slots) release(given *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.put(given)
	s.settle()
}

func (s *slots) put(given *slot) {
	s.running--

	if given.reserved {
		s.reserved++
	} else {
		s.free++
	}
}

func (s *slots) take(frozen bool) *slot {
	switch {
	case frozen && s.reserved > 0:
		s.reserved--
		return &slot{reserved: true}
	case s.free > 0:
		s.free--
		return &slot{}
	default:
		return nil
	}
}

// settle gives out what is free, in the order of the queue, and tells the others
// their places.
func (s *slots) settle() {
	for len(s.queue) > 0 {
		w := s.queue[0]
		if w.given = s.take(w.frozen); w.given == nil {
			break
		}

		s.running++
		s.queue = s.queue[1:]
		w.tell(0)
	}

	for i, w := range s.queue {
		w.tell(i + 1)
	}

	s.changed(s.running, len(s.queue))
}

// tell replaces what the waiter has not yet taken. There is one sender at a time.
func (w *waiter) tell(place int) {
	select {
	case <-w.place:
	default:
	}

	w.place <- place
}
