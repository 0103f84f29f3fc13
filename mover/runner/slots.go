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
//
// A job that waits for its turn behind another one takes no place and holds nobody up.
type slots struct {
	changed func(running, queued int)
	// free is how many jobs that are not frozen may run, and reserved how many frozen ones beside them.
	free, reserved int
	// most is how many may run at all; 0 is no bound.
	most int

	mu               sync.Mutex
	ordinary, frozen int
	running          []*slot
	queue            []*waiter
}

// want is what a job asks of the slots.
type want struct {
	// frozen says that an application is kept frozen for the job.
	frozen bool
	// alone wants no other job beside this one but frozen ones. A frozen job doesn't wait for that.
	alone bool
	// turn is what one job at a time has, frozen ones aside; empty for none.
	turn string
	// name of the job, for those that wait for its turn.
	name string
}

// Place is where a job stands that waits.
type Place struct {
	// Number of the job in the queue for slots, from 1 on; 0 if it does not stand there.
	Number int
	// Behind is the name of the job that must end before this one may have a slot; empty if there is none.
	Behind string
}

type waiter struct {
	want

	// place takes the newest place in the queue; the zero Place says that the slot is there.
	place chan Place
	// given is the place that the waiter holds, once it has one; guarded by slots.mu.
	given *slot
}

// slot is a taken place.
type slot struct {
	want

	// count is how many ran when it was taken, this one included.
	count int
	// release returns it to the pool; it may be called more than once.
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
func (s *slots) acquire(ctx context.Context, of want, queued func(Place)) (*slot, error) {
	w := &waiter{want: of, place: make(chan Place, 1)}
	s.enqueue(w)

	for {
		select {
		case <-ctx.Done():
			s.leave(w)
			return nil, context.Cause(ctx)
		case place := <-w.place:
			if place == (Place{}) {
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
func (s *slots) begin(w want) *slot {
	count := s.ordinary + s.frozen

	switch {
	case w.frozen && (s.most == 0 || count < s.most):
		s.frozen++
	case !w.frozen && s.room(w):
		s.ordinary++
	default:
		return nil
	}

	taken := &slot{want: w, count: count + 1}
	taken.release = sync.OnceFunc(func() { s.end(taken) })
	s.running = append(s.running, taken)

	return taken
}

// room reports whether a job that is not frozen may begin.
func (s *slots) room(w want) bool {
	single := w.alone || slices.ContainsFunc(s.running, func(o *slot) bool { return o.alone && !o.frozen })
	if single && s.ordinary > 0 {
		return false
	}

	return s.ordinary+max(0, s.frozen-s.reserved) < s.free
}

// holder returns the name of the running job behind which this one has to wait; empty if there is none.
func (s *slots) holder(w want) string {
	if w.frozen || w.turn == "" {
		return ""
	}

	if i := slices.IndexFunc(s.running, func(o *slot) bool { return o.turn == w.turn }); i >= 0 {
		return s.running[i].name
	}

	return ""
}

func (s *slots) end(of *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if of.frozen {
		s.frozen--
	} else {
		s.ordinary--
	}

	s.running = slices.DeleteFunc(s.running, func(o *slot) bool { return o == of })
	s.settle()
}

// settle lets begin what may, in the order of the queue, and tells the others
// their places.
func (s *slots) settle() {
	var (
		waiting []*waiter
		full    bool
	)

	for _, w := range s.queue {
		if !full && s.holder(w.want) == "" {
			w.given = s.begin(w.want)
			full = w.given == nil
		}

		if w.given != nil {
			w.tell(Place{})
			continue
		}

		waiting = append(waiting, w)
	}

	s.queue = waiting
	number := 0

	for _, w := range waiting {
		if behind := s.holder(w.want); behind != "" {
			w.tell(Place{Behind: behind})
			continue
		}

		number++
		w.tell(Place{Number: number})
	}

	s.changed(s.ordinary+s.frozen, len(s.queue))
}

// tell replaces what the waiter has not yet taken. There is one sender at a time.
func (w *waiter) tell(place Place) {
	select {
	case <-w.place:
	default:
	}

	w.place <- place
}
