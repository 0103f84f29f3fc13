package store

import (
	"context"
	"slices"
	"sync"
)

const (
	// partMax is what a worker is sure of at most, in bytes: enough for a pack of
	// kopia, which is 20 MB and the last content beyond that.
	partMax = 24 << 20
	// overhead is what a request takes besides its blob: the buffers of its connections.
	overhead = 256 << 10
)

// Room bounds the memory that workers' requests take. It may be shared by any
// number of brokers and goroutines: the bound is of their sum. Each worker is sure
// of a part of it, whatever the others do; what they are not sure of, who comes
// first may have.
type Room struct {
	size    int64
	workers int

	mu      sync.Mutex
	used    int64
	shares  map[*share]struct{}
	waiting []*waiter // in the order of their coming
}

// NewRoom makes a Room of so many bytes, DefaultMemory where that is not above 0, for
// so many workers at a time. If there are more, each is sure of less.
func NewRoom(bytes int64, workers int) *Room {
	if bytes <= 0 {
		bytes = DefaultMemory
	}

	return &Room{size: bytes, workers: max(workers, 1), shares: map[*share]struct{}{}}
}

// share is one worker's use of a Room.
type share struct {
	room *Room
	// Both are under the lock of the room.
	users int
	held  int64
}

type waiter struct {
	share *share
	n     int64
	// answer is whether the waiter has got what it waits for; it has room for one.
	answer chan bool
}

// enter makes the worker one of those that are sure of a part, until leave.
func (s *share) enter() {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()

	s.users++
	s.room.shares[s] = struct{}{}
}

func (s *share) leave() {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()

	if s.users--; s.users == 0 {
		delete(s.room.shares, s)
	}

	s.room.serve()
}

// part is what each worker is sure of, in bytes.
func (r *Room) part() int64 { return min(partMax, r.size/int64(max(r.workers, len(r.shares)))) }

// fits reports whether a worker may have n bytes more: within its part whenever they
// are there, and beyond it if all others' parts stay free for them.
func (r *Room) fits(s *share, n int64) bool {
	part := r.part()

	switch {
	case r.used+n > r.size:
		return false
	case s.held+n <= part:
		return true
	}

	sum := s.held + n + part*int64(max(0, r.workers-len(r.shares)))

	for other := range r.shares {
		if other != s {
			sum += max(part, other.held)
		}
	}

	return sum <= r.size
}

// reservation is a part of a Room, held by one request.
type reservation struct {
	share *share
	n     int64
}

// reserve takes room for n bytes. It waits for what the worker is sure of. For
// more it does not wait, because it might wait for others without end: it gives
// nil where there is no room for that now.
func (s *share) reserve(ctx context.Context, n int64) (*reservation, error) {
	s.enter()

	got, err := s.take(ctx, n)
	if err != nil || !got {
		s.leave()

		return nil, err
	}

	return &reservation{share: s, n: n}, nil
}

// part is what the worker is sure of now, in bytes.
func (s *share) part() int64 {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()

	return s.room.part()
}

func (s *share) take(ctx context.Context, n int64) (bool, error) {
	r := s.room
	w := &waiter{share: s, n: n, answer: make(chan bool, 1)}

	r.mu.Lock()
	r.waiting = append(r.waiting, w)
	r.serve()
	r.mu.Unlock()

	select {
	case got := <-w.answer:
		return got, nil
	case <-ctx.Done():
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.waiting = slices.DeleteFunc(r.waiting, func(other *waiter) bool { return other == w })

	select {
	case got := <-w.answer: // just now
		if got {
			r.giveBack(s, n)
		}
	default:
	}

	r.serve()

	return false, canceled(ctx, "wait for the broker's memory")
}

// serve answers those who wait and whose turn it is: of each worker one after the
// other, and no worker for another's sake. The lock is held.
func (r *Room) serve() {
	behind := map[*share]bool{}

	r.waiting = slices.DeleteFunc(r.waiting, func(w *waiter) bool {
		switch {
		case !behind[w.share] && r.fits(w.share, w.n):
			r.used += w.n
			w.share.held += w.n
			w.answer <- true
		case w.n > r.part():
			w.answer <- false
		default:
			behind[w.share] = true
			return false
		}

		return true
	})
}

func (r *Room) giveBack(s *share, n int64) {
	r.used -= n
	s.held -= n
}

// shrink releases what is not needed after all.
func (v *reservation) shrink(to int64) {
	v.share.room.mu.Lock()
	defer v.share.room.mu.Unlock()

	if to < v.n {
		v.share.room.giveBack(v.share, v.n-to)
		v.n = to
		v.share.room.serve()
	}
}

func (v *reservation) release() {
	v.shrink(0)
	v.share.leave()
}
