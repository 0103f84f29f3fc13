package runner

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// arrival is one job that asks for a slot.
type arrival struct {
	name          string
	frozen, alone bool
	turn          string
}

// crowd is a number of jobs that stand before the slots, in the order they came.
type crowd struct {
	t       *testing.T
	slots   *slots
	counted struct{ running, queued int }
	running map[string]func()
	got     map[string]chan func()
}

func newCrowd(t *testing.T, free, reserved int) *crowd {
	t.Helper()

	c := &crowd{t: t, running: map[string]func(){}, got: map[string]chan func(){}}
	c.slots = &slots{free: free, reserved: reserved, changed: func(running, queued int) { c.counted.running, c.counted.queued = running, queued }}

	return c
}

// arrive has a job ask for a slot, and returns when it either has one or stands in the queue.
func (c *crowd) arrive(a arrival) {
	c.t.Helper()

	got := make(chan func(), 1)
	queued := make(chan Place, 100)
	c.got[a.name] = got

	go func() {
		slot, err := c.slots.acquire(context.Background(), want{a.frozen, a.alone, a.turn, a.name}, func(p Place) { queued <- p })
		if err == nil {
			got <- slot.release
		}
	}()

	select {
	case release := <-got:
		c.running[a.name] = release
	case <-queued:
	case <-time.After(10 * time.Second):
		c.t.Fatalf("%s neither runs nor waits", a.name)
	}
}

// next releases the slot of one job, and returns the job that got it.
func (c *crowd) next(done string, waiting []string) string {
	c.t.Helper()
	c.running[done]()

	deadline := time.After(10 * time.Second)

	for _, name := range waiting {
		select {
		case release := <-c.got[name]:
			c.running[name] = release
			return name
		case <-deadline:
			c.t.Fatalf("nobody of %v was given the slot of %s", waiting, done)
		}
	}

	return ""
}

func TestSlots(t *testing.T) {
	tests := map[string]struct {
		free, reserved int
		// most is how many may run at all.
		most     int
		arrivals []arrival
		running  []string
		// also end before done does.
		also []string
		// done is whose slot is released, and next who is to have it.
		done, next string
	}{
		"jobs take the slots as they come": {
			free: 2, arrivals: []arrival{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}},
			running: []string{"a", "b"}, done: "b", next: "c",
		},
		"a frozen job takes the reserved slot while all others are taken": {
			free: 1, reserved: 1, arrivals: []arrival{{name: "a"}, {name: "b"}, {name: "f", frozen: true}},
			running: []string{"a", "f"}, done: "a", next: "b",
		},
		"a reserved slot that is given back is not for others": {
			free: 1, reserved: 1, arrivals: []arrival{{name: "f", frozen: true}, {name: "a"}, {name: "b"}},
			running: []string{"f", "a"}, done: "a", next: "b",
		},
		"frozen jobs beyond the reserved ones take the slots of others": {
			free: 1, reserved: 1, arrivals: []arrival{{name: "f", frozen: true}, {name: "g", frozen: true}, {name: "a"}},
			running: []string{"f", "g"}, done: "g", next: "a",
		},
		"frozen jobs begin at once while all slots are taken": {
			free: 1, reserved: 1, arrivals: []arrival{
				{name: "a"}, {name: "b"}, {name: "f", frozen: true}, {name: "g", frozen: true}, {name: "h", frozen: true},
			},
			running: []string{"a", "f", "g", "h"},
		},
		"others wait until what frozen jobs took is free again": {
			free: 1, reserved: 1, arrivals: []arrival{{name: "a"}, {name: "f", frozen: true}, {name: "g", frozen: true}, {name: "b"}},
			running: []string{"a", "f", "g"}, also: []string{"a"}, done: "g", next: "b",
		},
		"a frozen job for which there is no memory goes before all that are not frozen": {
			free: 1, reserved: 1, most: 2, arrivals: []arrival{{name: "a"}, {name: "b"}, {name: "f", frozen: true}, {name: "g", frozen: true}},
			running: []string{"a", "f"}, done: "a", next: "g",
		},
		"one that moves the same volume waits, and keeps nobody else from a slot": {
			free: 2, arrivals: []arrival{{name: "a", turn: "v"}, {name: "b", turn: "v"}, {name: "c"}, {name: "d"}},
			running: []string{"a", "c"}, done: "a", next: "b",
		},
		"those of one volume go in the order they came": {
			free: 3, arrivals: []arrival{{name: "a", turn: "v"}, {name: "b", turn: "v"}, {name: "c", turn: "v"}},
			running: []string{"a"}, done: "a", next: "b",
		},
		"a frozen job waits for no other of its volume": {
			free: 2, reserved: 1, arrivals: []arrival{{name: "a", turn: "v"}, {name: "f", turn: "v", frozen: true}, {name: "b", turn: "v"}},
			running: []string{"a", "f"}, also: []string{"a"}, done: "f", next: "b",
		},
		"one that needs all memory waits until others are done": {
			free: 2, arrivals: []arrival{{name: "a"}, {name: "b"}, {name: "m", alone: true}, {name: "c"}},
			running: []string{"a", "b"}, also: []string{"a"}, done: "b", next: "m",
		},
		"none begins beside one that needs all memory": {
			free: 2, reserved: 1, arrivals: []arrival{{name: "m", alone: true}, {name: "a"}, {name: "f", frozen: true}},
			running: []string{"m", "f"}, done: "m", next: "a",
		},
		"a frozen one that needs all memory doesn't wait for it": {
			free: 2, reserved: 1, arrivals: []arrival{{name: "a"}, {name: "f", frozen: true, alone: true}, {name: "b"}},
			running: []string{"a", "f", "b"},
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, test.free, test.reserved)
			c.slots.most = test.most

			for _, a := range test.arrivals {
				c.arrive(a)
			}

			running := make([]string, 0, len(c.running))
			for name := range c.running {
				running = append(running, name)
			}

			assert.ElementsMatch(t, test.running, running)
			assert.Equal(t, len(test.running), c.counted.running)
			assert.Equal(t, len(test.arrivals)-len(test.running), c.counted.queued)

			for _, name := range test.also {
				c.running[name]()
				assert.Equal(t, len(test.arrivals)-len(test.running), c.counted.queued, "nobody begins yet")
			}

			if test.next != "" {
				assert.Equal(t, test.next, c.next(test.done, []string{test.next}))
			}
		})
	}
}

func TestPlacesInTheQueue(t *testing.T) {
	s := &slots{free: 1, changed: func(int, int) {}}

	running, err := s.acquire(context.Background(), want{}, func(Place) {})
	require.NoError(t, err)

	ctx, cancel := context.WithCancelCause(context.Background())
	first, second := make(chan Place, 10), make(chan Place, 10)
	left, done := make(chan error, 1), make(chan struct{})

	go func() {
		_, err := s.acquire(ctx, want{}, func(p Place) { first <- p })
		left <- err
	}()

	assert.Equal(t, Place{Number: 1}, <-first)

	go func() {
		defer close(done)

		last, err := s.acquire(context.Background(), want{}, func(p Place) { second <- p })
		if assert.NoError(t, err) {
			last.release()
			last.release()
		}
	}()

	assert.Equal(t, Place{Number: 2}, <-second)

	cancel(ErrCanceled)
	require.ErrorIs(t, <-left, ErrCanceled)

	assert.Equal(t, Place{Number: 1}, <-second, "those behind move up when one leaves")
	running.release()
	<-done

	assert.Zero(t, s.ordinary, "a slot that is released twice is one slot")
}

func TestLeavingWithASlot(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		s := &slots{free: 1, changed: func(int, int) {}}
		w := &waiter{want: want{frozen: frozen}, place: make(chan Place, 1)}
		s.enqueue(w)
		require.NotNil(t, w.given)

		s.leave(w)

		assert.Zero(t, s.ordinary+s.frozen, "a waiter that is cancelled as it is given a slot gives it back")
	}
}

func TestWhoWaitsForItsTurnIsToldBehindWhom(t *testing.T) {
	s := &slots{free: 1, changed: func(int, int) {}}

	running, err := s.acquire(t.Context(), want{turn: "v", name: "first"}, func(Place) {})
	require.NoError(t, err)

	ctx, cancel := context.WithCancelCause(t.Context())
	places, left := make(chan Place, 10), make(chan error, 1)

	go func() {
		_, err := s.acquire(ctx, want{turn: "v", name: "second"}, func(p Place) { places <- p })
		left <- err
	}()

	assert.Equal(t, Place{Behind: "first"}, <-places)

	other := &waiter{place: make(chan Place, 1)}
	s.enqueue(other)
	assert.Equal(t, Place{Number: 1}, <-other.place, "who waits for a turn stands in nobody's way")

	cancel(ErrCanceled)
	require.ErrorIs(t, <-left, ErrCanceled)

	running.release()
	assert.NotNil(t, other.given)
}
