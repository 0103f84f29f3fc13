package beneath

import "sync/atomic"

// rounds is how many ticks the clocks of calls look back.
const rounds = 64

// calls counts the system calls under way by the tick they began at. A call that the kernel
// doesn't come back from can't be interrupted, but it can be told.
type calls struct {
	now   atomic.Int64
	under [rounds]atomic.Int64
}

// begin notes that a call begins, and returns what end is to be told.
func (c *calls) begin() *atomic.Int64 {
	at := &c.under[c.now.Load()%rounds]
	at.Add(1)

	return at
}

// tick begins the next tick, and returns how many ticks ago the oldest call under way began; 0 if there is none.
func (c *calls) tick() int {
	now := c.now.Add(1)
	for age := rounds - 1; age > 0; age-- {
		if began := now - int64(age); began >= 0 && c.under[began%rounds].Load() > 0 {
			return age
		}
	}

	return 0
}

// Those of this process: it has one volume.
var (
	under calls
	syncs calls
)

// Tick is to be called at regular intervals, by one goroutine. It returns how many of them ago the oldest call to a
// file system began that has not come back; 0 if there is none. Waiting for all that was written to be on stable storage
// takes longer than any other call, and is told apart. Both count 63 at most.
func Tick() (call, sync int) { return under.tick(), syncs.tick() }

// noted calls f, and has it noted meanwhile that it is under way.
func noted(c *calls, f func() error) error {
	at := c.begin()
	defer at.Add(-1)

	return f()
}
