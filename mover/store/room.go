package store

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// Room bounds the memory that blobs take on their way. It may be shared by any
// number of brokers and goroutines: the bound is of their sum.
type Room struct {
	free *semaphore.Weighted
	size int64
}

// NewRoom makes a Room of so many bytes, DefaultMemory where that is not above 0. A larger blob passes alone.
func NewRoom(bytes int64) *Room {
	if bytes <= 0 {
		bytes = DefaultMemory
	}

	return &Room{free: semaphore.NewWeighted(bytes), size: bytes}
}

// reservation is a part of a Room, held by one request.
type reservation struct {
	room *Room
	n    int64
}

// reserve waits for room for n bytes.
func (r *Room) reserve(ctx context.Context, n int64) (*reservation, error) {
	n = min(n, r.size)
	if err := r.free.Acquire(ctx, n); err != nil {
		return nil, canceled(ctx, "wait for the broker's memory")
	}

	return &reservation{room: r, n: n}, nil
}

// resize corrects the reservation to what is really held. It never waits: what
// is held already can't be given back, and two that wait for each other's part
// would wait for ever.
func (v *reservation) resize(n int64) {
	n = min(n, v.room.size)

	switch {
	case n < v.n:
		v.room.free.Release(v.n - n)
	case n > v.n && !v.room.free.TryAcquire(n-v.n):
		return
	}

	v.n = n
}

func (v *reservation) release() { v.room.free.Release(v.n) }
