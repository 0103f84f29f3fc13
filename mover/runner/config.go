package runner

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// Causes of a cancelled job. They stand in the error's chain.
var (
	// ErrCanceled: somebody asked for the job to be stopped.
	ErrCanceled = errors.New("the job was cancelled")
	// ErrAborted: the job had to let go of its volume at once.
	ErrAborted = errors.New("the job was stopped at once, because its volume is about to go away")
	// ErrDraining: the daemon ends. The job itself is sound, and is to be taken up again.
	ErrDraining = errors.New("the daemon is shutting down")
)

// Config is how workers are run. The zero value of a field takes the default.
type Config struct {
	// Slots is how many workers run at a time; default 1.
	Slots int
	// Reserved is how many more are planned for frozen jobs; default 0. More than that
	// may run, because frozen jobs don't wait; other jobs then do.
	Reserved int
	// MemoryCeiling is what one worker may use whatever others use, in bytes; 0 is no bound. See Ceiling. It may use more
	// as long as all together use no more than the planned ones may. Those that begin beyond the planned ones have less.
	MemoryCeiling int64
	// MemoryPoll is how often a worker's memory is looked at; default 250 ms. What a
	// worker can take within that time goes beyond its ceiling.
	MemoryPoll time.Duration
	// CancelGrace is how long a cancelled worker has to end by itself; default 30 s.
	CancelGrace time.Duration
	// ExitGrace is how long a worker has to end after its result; default 10 s.
	ExitGrace time.Duration
	// LeaveGrace is how long a worker has to end after it was killed, before it is left behind; default 10 s.
	LeaveGrace time.Duration
	// StartGrace is how long a worker has to put up its fences; default 2 minutes.
	StartGrace time.Duration
	// VolumeStall is how long a call to a volume may take; 0 is no bound.
	VolumeStall time.Duration
	// Strict refuses jobs where the kernel lacks a fence.
	Strict bool
	// Executable is the program that has the worker's commands; default this very program.
	Executable string
	// Processors is how many a worker may use; default as many as the daemon.
	Processors int
	// Log takes what workers log. The zero value throws it away.
	Log logr.Logger
	// Metrics may be nil.
	Metrics Metrics
	// Clock may be nil, for the real one.
	Clock clock.WithTicker
}

// Metrics counts what the runner does. Its methods must not call the runner.
type Metrics interface {
	// Workers is called whenever one of the numbers may have changed.
	Workers(running, queued int)
	// WorkerEnded is called once for each task that had a slot; the code is empty for a success.
	WorkerEnded(verb, code string)
	// WorkersStuck is called whenever the number of workers has changed that were killed and don't end.
	WorkersStuck(n int)
}

type noMetrics struct{}

func (noMetrics) Workers(int, int) {}

func (noMetrics) WorkerEnded(string, string) {}

func (noMetrics) WorkersStuck(int) {}

func (c Config) withDefaults() Config {
	c.Slots = max(c.Slots, 1)
	c.Reserved = max(c.Reserved, 0)
	c.MemoryPoll = orDefault(c.MemoryPoll, 250*time.Millisecond)
	c.CancelGrace = orDefault(c.CancelGrace, 30*time.Second)
	c.ExitGrace = orDefault(c.ExitGrace, 10*time.Second)
	c.LeaveGrace = orDefault(c.LeaveGrace, 10*time.Second)
	c.StartGrace = orDefault(c.StartGrace, 2*time.Minute)
	c.Executable = orDefault(c.Executable, "/proc/self/exe")
	c.Processors = orDefault(c.Processors, runtime.GOMAXPROCS(0))

	if c.Log.GetSink() == nil {
		c.Log = logr.Discard()
	}

	if c.Metrics == nil {
		c.Metrics = noMetrics{}
	}

	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}

	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}

	return v
}

// Storage serves the storage of one repository to one worker. If it is an
// io.Closer too, it is closed when the worker is gone, or was never started.
type Storage interface {
	// Serve answers the worker at the other end of the socket, until that end is
	// closed or ctx is done. It is called once, and takes the socket over: it is
	// closed when Serve returns.
	Serve(ctx context.Context, socket *os.File) error
}

// Task is one job for a worker.
type Task struct {
	// Request for the worker. What depends on the machine and on who else runs is set by the runner: Version, Strict,
	// the bounds of memory, how many files are moved at a time, and after how many they are written to the store.
	Request protocol.Request
	// Name of the task, for those that wait for it.
	Name string
	// Volume names the volume of a task that moves one, for people and for this runner: no task is begun for a volume on
	// which a worker of an earlier one is stuck.
	Volume string
	// Turn is what one task at a time has: those of one turn run one after the other, in the order they came. Frozen ones
	// don't wait for it. Empty waits for nobody.
	Turn string
	// Alone marks a job that was ended for want of memory: it runs beside frozen jobs only, and moves one file at a time.
	Alone bool
	// Frozen marks a job that an application is kept frozen for: it goes before all others.
	Frozen bool
	// OpenVolume opens the volume's folder. It is called once the slot is there,
	// and the runner closes the file as soon as the worker has it: an open one
	// keeps the kubelet from unmounting. Nil for repository work.
	OpenVolume func(ctx context.Context) (*os.File, error)
	// BeforeWrite is called at most once, when the worker of a restore is about to change the
	// volume, with the ID of the snapshot, as the worker says. It waits for that; an error keeps it from it, and
	// is passed on. Nil lets it go on.
	BeforeWrite func(ctx context.Context, snapshot string) error
	// OpenStorage returns the storage of the repository, once the slot is there.
	OpenStorage func(ctx context.Context) (Storage, error)

	// abort kills the worker at once when it is closed.
	abort <-chan struct{}
}

// Watch is told how a task gets on, by one goroutine at a time. Each function
// may be nil, and must return quickly.
type Watch struct {
	// Queued is called with the place of the waiting task, whenever that changes.
	Queued func(Place)
	// Started is called when a slot is free and the worker is being started.
	Started func()
	// Fences is called with the fences that the worker runs behind.
	Fences func(protocol.Fences)
	// Progress is called with what is done so far.
	Progress func(engine.Progress)
}

func (w Watch) withDefaults() Watch {
	if w.Queued == nil {
		w.Queued = func(Place) {}
	}

	if w.Started == nil {
		w.Started = func() {}
	}

	if w.Fences == nil {
		w.Fences = func(protocol.Fences) {}
	}

	if w.Progress == nil {
		w.Progress = func(engine.Progress) {}
	}

	return w
}
