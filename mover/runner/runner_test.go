package runner_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

// bound is within how long everything has to happen that happens at all.
const bound = 20 * time.Second

func child(t *testing.T) string {
	t.Helper()

	path, err := workertest.Build(t.Context(), t.TempDir())
	require.NoError(t, err)

	return path
}

// hello is a storage that answers each line with another.
type hello struct{ closed *atomic.Int32 }

// Close counts.
func (h hello) Close() error {
	if h.closed != nil {
		h.closed.Add(1)
	}

	return nil
}

// Serve answers until the worker closes the socket.
func (hello) Serve(ctx context.Context, socket *os.File) error {
	defer socket.Close()

	conn, err := net.FileConn(socket)
	if err != nil {
		return fmt.Errorf("use the socket: %w", err)
	}
	defer conn.Close()

	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if _, err := fmt.Fprintf(conn, "hello, %s\n", lines.Text()); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}

	return lines.Err()
}

// task makes a task of a verb whose engine runs the script.
func task(t *testing.T, v protocol.Verb, s workertest.Script) runner.Task {
	t.Helper()

	task := runner.Task{
		Request:     workertest.Request(v, s, filepath.Join(t.TempDir(), "cache")),
		OpenStorage: func(context.Context) (runner.Storage, error) { return hello{}, nil },
	}
	if v.MovesVolume() {
		volume := t.TempDir()
		task.OpenVolume = func(context.Context) (*os.File, error) { return os.Open(volume) }
	}

	return task
}

// log collects what is logged.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) take(_, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.lines = append(l.lines, args)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()

	return strings.Join(l.lines, "\n")
}

func TestResults(t *testing.T) {
	program := child(t)

	tests := map[string]struct {
		verb    protocol.Verb
		script  workertest.Script
		tune    func(*runner.Task)
		code    engine.Code
		message string
		check   func(*testing.T, protocol.Result)
	}{
		"a backup hands back what it took": {
			verb: protocol.VerbBackup, script: workertest.Succeed,
			check: func(t *testing.T, r protocol.Result) { assert.Equal(t, "done", r.Backup.SnapshotID) },
		},
		"a restore hands back what it wrote": {
			verb: protocol.VerbRestore, script: workertest.Succeed,
			check: func(t *testing.T, r protocol.Result) { assert.Equal(t, "done", r.Restore.SnapshotID) },
		},
		"a restore that nobody keeps from writing writes": {
			verb: protocol.VerbRestore, script: workertest.Write,
			check: func(t *testing.T, r protocol.Result) { assert.Equal(t, "done", r.Restore.SnapshotID) },
		},
		"a restore writes when it was let to": {
			verb: protocol.VerbRestore, script: workertest.Write,
			tune: func(t *runner.Task) {
				t.BeforeWrite = func(_ context.Context, snapshot string) error {
					if snapshot != "begun" {
						return engine.Errorf(engine.CodeInternal, "told to begin with %q", snapshot)
					}

					return nil
				}
			},
			check: func(t *testing.T, r protocol.Result) { assert.Equal(t, "done", r.Restore.SnapshotID) },
		},
		"a restore that is kept from writing ends": {
			verb: protocol.VerbRestore, script: workertest.Write,
			tune: func(t *runner.Task) {
				t.BeforeWrite = func(context.Context, string) error {
					return engine.Errorf(engine.CodeStoreUnavailable, "nobody would know")
				}
			},
			code: engine.CodeStoreUnavailable, message: "nobody would know",
		},
		"what a restore may not do itself, another worker does": {
			verb: protocol.VerbRestore, script: workertest.Links,
			check: func(t *testing.T, r protocol.Result) { assert.Equal(t, "linked", r.Restore.SnapshotID) },
		},
		"and if that fails, the restore has": {
			verb: protocol.VerbRestore, script: workertest.LinkThatFails,
			code: engine.CodeTargetUnwritable, message: "set-links: link link-that-fails can't be set",
		},
		"unless it is to be left out": {
			verb: protocol.VerbRestore, script: workertest.LinkThatFails,
			tune: func(t *runner.Task) { t.Request.Restore.OnFileError = engine.FileErrorSkip },
			check: func(t *testing.T, r protocol.Result) {
				assert.Equal(t, []engine.Omission{{Reason: engine.OmittedOwner, Count: 1}}, r.Restore.Summary.Omissions)
			},
		},
		"repository work needs no volume": {verb: protocol.VerbCreateRepository, script: workertest.Succeed},
		"forgetting hands back how many": {
			verb: protocol.VerbForget, script: workertest.Succeed,
			check: func(t *testing.T, r protocol.Result) { assert.Equal(t, 1, r.Forget.Deleted) },
		},
		"a list hands back the snapshots": {
			verb: protocol.VerbList, script: workertest.Succeed,
			check: func(t *testing.T, r protocol.Result) { assert.Equal(t, "listed", r.Snapshots[0].ID) },
		},
		"the storage answers at the other end of the socket": {
			verb: protocol.VerbBackup, script: workertest.Fetch,
			check: func(t *testing.T, r protocol.Result) {
				assert.Equal(t, "hello, daemon", r.Backup.SnapshotID)
			},
		},
		"the engine's code comes through": {
			verb: protocol.VerbBackup, script: workertest.Fail,
			code: engine.CodeStoreUnavailable, message: "backup: the store is away",
		},
		"a panic is a worker's death": {
			verb: protocol.VerbBackup, script: workertest.Panic,
			code: engine.CodeWorkerDied, message: `exit status 2; the last it said: "panic: the engine is at its end`,
		},
		"an exit without a result is a worker's death": {
			verb: protocol.VerbBackup, script: workertest.Exit,
			code: engine.CodeWorkerDied, message: "exit status 7",
		},
		"a worker that says it was cancelled, and was not, has died": {
			verb: protocol.VerbBackup, script: workertest.Cancel,
			code: engine.CodeWorkerDied, message: "not by the daemon",
		},
		"a volume that can't be opened": {
			verb: protocol.VerbBackup, script: workertest.Succeed,
			tune: func(t *runner.Task) {
				t.OpenVolume = func(context.Context) (*os.File, error) { return os.Open("/nowhere") }
			},
			code: engine.CodeInternal, message: "open the volume: open /nowhere",
		},
		"a storage that can't be opened": {
			verb: protocol.VerbForget, script: workertest.Succeed,
			tune: func(t *runner.Task) {
				t.OpenStorage = func(context.Context) (runner.Storage, error) {
					return nil, engine.Errorf(engine.CodeCredentialsInvalid, "no such secret")
				}
			},
			code: engine.CodeCredentialsInvalid, message: "open the repository's storage: no such secret",
		},
		"a backup without a volume is refused": {
			verb: protocol.VerbBackup, script: workertest.Succeed,
			tune: func(t *runner.Task) { t.OpenVolume = nil },
			code: engine.CodeInvalidRequest, message: "needs a storage, and a volume",
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			job := task(t, test.verb, test.script)
			if test.tune != nil {
				test.tune(&job)
			}

			var logged log

			r := runner.New(runner.Config{Executable: program, Log: funcr.New(logged.take, funcr.Options{})})
			result, err := r.Run(t.Context(), job, runner.Watch{})

			assert.NotContains(t, logged.text(), job.Request.Password)

			left, globErr := filepath.Glob(filepath.Join(job.Request.Cache.Dir, "links-*"))
			require.NoError(t, globErr)
			assert.Empty(t, left)

			if test.code != "" {
				require.ErrorContains(t, err, test.message)
				assert.Equal(t, test.code, engine.CodeOf(err))

				return
			}

			require.NoError(t, err, logged.text())
			assert.Contains(t, logged.text(), `"msg"="the engine was made"`)

			if test.check != nil {
				test.check(t, result)
			}
		})
	}
}

func TestWatch(t *testing.T) {
	r := runner.New(runner.Config{Executable: child(t)})

	var (
		started  int
		fences   []protocol.Fences
		progress []engine.Progress
	)

	_, err := r.Run(t.Context(), task(t, protocol.VerbBackup, workertest.Succeed), runner.Watch{
		Started:  func() { started++ },
		Fences:   func(f protocol.Fences) { fences = append(fences, f) },
		Progress: func(p engine.Progress) { progress = append(progress, p) },
	})

	require.NoError(t, err)
	assert.Equal(t, 1, started)
	require.Len(t, fences, 1)
	assert.True(t, fences[0].Seccomp)
	assert.Equal(t, []engine.Progress{{BytesDone: 1, TotalBytes: 2}, {BytesDone: 2, TotalBytes: 2}}, progress,
		"the first is passed on at once, the last before the result")
}

func TestStopping(t *testing.T) {
	program := child(t)

	tests := map[string]struct {
		script workertest.Script
		cause  error
		// within is how long the end may take.
		grace, within time.Duration
	}{
		"a worker that listens ends by itself, long before the grace is over": {
			script: workertest.Wait, cause: runner.ErrCanceled, grace: time.Minute, within: bound,
		},
		"a worker that does not listen is killed when the grace is over": {
			script: workertest.Deaf, cause: runner.ErrCanceled, grace: 100 * time.Millisecond, within: bound,
		},
		"a daemon that drains says so": {
			script: workertest.Wait, cause: runner.ErrDraining, grace: time.Minute, within: bound,
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := runner.New(runner.Config{Executable: program, CancelGrace: test.grace})
			ctx, cancel := context.WithCancelCause(t.Context())

			began := time.Now()
			_, err := r.Run(ctx, task(t, protocol.VerbBackup, test.script), runner.Watch{
				Progress: func(engine.Progress) { cancel(test.cause) },
			})

			require.ErrorIs(t, err, test.cause)
			assert.Equal(t, engine.CodeCanceled, engine.CodeOf(err))
			assert.Less(t, time.Since(began), test.within)
		})
	}
}

func TestMemoryCeiling(t *testing.T) {
	r := runner.New(runner.Config{
		Executable: child(t), MemoryCeiling: 96 << 20, MemoryPoll: 20 * time.Millisecond,
	})

	_, err := r.Run(t.Context(), task(t, protocol.VerbRestore, workertest.Allocate), runner.Watch{})

	require.Error(t, err)
	assert.Equal(t, engine.CodeMemoryExceeded, engine.CodeOf(err), err)
	assert.ErrorContains(t, err, "its ceiling is 96 MiB")
}

// A worker that takes more than its ceiling has what the others leave; then it is told to end, with all the time it needs
// to write down what it has.
func TestMemoryThatOthersLeave(t *testing.T) {
	const ceiling = 96 << 20

	var most, written int64

	r := runner.New(runner.Config{
		Executable: child(t), Slots: 2, MemoryCeiling: ceiling, MemoryPoll: 20 * time.Millisecond, CancelGrace: time.Nanosecond,
	})

	_, err := r.Run(t.Context(), task(t, protocol.VerbBackup, workertest.Grow), runner.Watch{
		Progress: func(p engine.Progress) { most, written = max(most, p.BytesDone), p.FilesDone },
	})

	require.Error(t, err)
	assert.Equal(t, engine.CodeMemoryExceeded, engine.CodeOf(err), err)
	require.ErrorContains(t, err, "of the 192 MiB that are theirs")
	assert.Greater(t, most, int64(ceiling), "nobody else needs it")
	assert.Less(t, most, int64(2*ceiling))
	assert.Equal(t, int64(1), written, "it ended by itself")
}

func TestAWorkerThatWindsUpIsCancelledLikeAnyOther(t *testing.T) {
	for name, test := range map[string]struct {
		grace time.Duration
	}{
		"it listens":                 {time.Minute},
		"or is killed after a while": {time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			r := runner.New(runner.Config{
				Executable: child(t), Slots: 2, MemoryCeiling: 96 << 20, MemoryPoll: 20 * time.Millisecond, CancelGrace: test.grace,
			})

			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)

			_, err := r.Run(ctx, task(t, protocol.VerbBackup, workertest.Linger), runner.Watch{
				Progress: func(p engine.Progress) {
					if p.FilesDone > 0 {
						cancel(runner.ErrCanceled)
					}
				},
			})

			require.ErrorIs(t, err, runner.ErrCanceled)
			assert.Equal(t, engine.CodeCanceled, engine.CodeOf(err))
		})
	}
}

func TestHowMuchAtATimeIsTheRunnersToSay(t *testing.T) {
	// The worker's request is in its engine's hands: the script shows it.
	job := task(t, protocol.VerbBackup, workertest.Parallel)
	program := child(t)

	for alone, want := range map[bool]string{false: "3 of 38400", true: "1 of 38400"} {
		job.Alone = alone

		result, err := runner.New(runner.Config{Executable: program, Processors: 8, MemoryCeiling: 150 << 20}).Run(t.Context(), job, runner.Watch{})
		require.NoError(t, err)
		assert.Equal(t, want, result.Backup.SnapshotID)
		assert.Zero(t, job.Request.Backup.Parallel, "the task's own request is left as it is")
		assert.Zero(t, job.Request.Backup.FlushAfter)
	}
}

// An application that is frozen waits for no other job, and the memory holds nevertheless.
func TestFrozenJobsBeginAtOnce(t *testing.T) {
	const frozen = 4

	r := runner.New(runner.Config{Executable: child(t), Slots: 2, Reserved: 1, MemoryCeiling: 512 << 20})
	ctx, cancel := context.WithCancel(t.Context())

	var all sync.WaitGroup

	defer all.Wait()
	defer cancel()

	progress, queued := make(chan string, 100), make(chan string, 100)
	begin := func(name string, isFrozen bool) {
		job := task(t, protocol.VerbBackup, workertest.Wait)
		job.Frozen = isFrozen

		all.Add(1)

		go func() {
			defer all.Done()

			_, _ = r.Run(ctx, job, runner.Watch{
				Progress: func(engine.Progress) { progress <- name },
				Queued:   func(runner.Place) { queued <- name },
			})
		}()
	}
	next := func(from chan string) string {
		select {
		case name := <-from:
			return name
		case <-time.After(bound):
			require.Fail(t, "nothing happened")
			return ""
		}
	}

	begin("a", false)
	begin("b", false)
	assert.ElementsMatch(t, []string{"a", "b"}, []string{next(progress), next(progress)})

	begin("c", false)
	assert.Equal(t, "c", next(queued), "all slots are taken")

	for range frozen {
		begin("frozen", true)
	}

	for range frozen {
		assert.Equal(t, "frozen", next(progress), "it works, beside two others, and before the one that waits")
	}
}

func TestKilledWorker(t *testing.T) {
	r := runner.New(runner.Config{Executable: child(t)})

	_, err := r.Run(t.Context(), task(t, protocol.VerbBackup, workertest.Deaf), runner.Watch{
		Progress: func(engine.Progress) {
			for _, pid := range workers(t) {
				assert.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			}
		},
	})

	require.Error(t, err)
	assert.Equal(t, engine.CodeWorkerDied, engine.CodeOf(err))
	require.ErrorContains(t, err, "signal: killed")
	assert.True(t, engine.CodeOf(err).Retryable())
}

// workers returns the process IDs of this process's children that are workers.
func workers(t *testing.T) []int {
	t.Helper()

	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)

	var pids []int

	for _, f := range files {
		stat, err := os.ReadFile(f)
		if err != nil {
			continue
		}

		// PID (NAME) STATE PPID: the name may hold spaces.
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)

		if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) || fields[0] == "Z" {
			continue
		}

		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		require.NoError(t, err)

		pids = append(pids, pid)
	}

	return pids
}

func TestNoDescriptorStaysBehind(t *testing.T) {
	r := runner.New(runner.Config{Executable: child(t)})

	for range 2 {
		_, err := r.Run(t.Context(), task(t, protocol.VerbBackup, workertest.Fetch), runner.Watch{})
		require.NoError(t, err)
	}

	before := descriptors(t)

	for range 5 {
		_, err := r.Run(t.Context(), task(t, protocol.VerbBackup, workertest.Fetch), runner.Watch{})
		require.NoError(t, err)
	}

	assert.LessOrEqual(t, descriptors(t), before)
}

func descriptors(t *testing.T) int {
	t.Helper()

	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)

	return len(entries)
}

// TestVolumeIsLetGo shows that the daemon holds no descriptor of the volume while the worker runs.
func TestVolumeIsLetGo(t *testing.T) {
	r := runner.New(runner.Config{Executable: child(t)})
	ctx, cancel := context.WithCancelCause(t.Context())
	job := task(t, protocol.VerbBackup, workertest.Wait)

	var opened *os.File

	open := job.OpenVolume
	job.OpenVolume = func(ctx context.Context) (*os.File, error) {
		f, err := open(ctx)
		opened = f

		return f, err
	}

	_, err := r.Run(ctx, job, runner.Watch{Progress: func(engine.Progress) {
		_, err := opened.Stat()
		assert.ErrorIs(t, err, os.ErrClosed) //nolint:testifylint // require must not end another goroutine than the test's
		cancel(runner.ErrCanceled)
	}})
	require.ErrorIs(t, err, runner.ErrCanceled)
}

func TestStorageIsClosed(t *testing.T) {
	program := child(t)

	tests := map[string]struct {
		open func(context.Context) (*os.File, error)
		code engine.Code
	}{
		"after the worker":               {open: func(context.Context) (*os.File, error) { return os.Open("/usr") }},
		"also where none could be begun": {open: func(context.Context) (*os.File, error) { return nil, os.ErrNotExist }, code: engine.CodeInternal},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var closed atomic.Int32

			job := task(t, protocol.VerbBackup, workertest.Succeed)
			job.OpenVolume = test.open
			job.OpenStorage = func(context.Context) (runner.Storage, error) { return hello{closed: &closed}, nil }

			_, err := runner.New(runner.Config{Executable: program}).Run(t.Context(), job, runner.Watch{})

			assert.Equal(t, test.code, engine.CodeOf(err))
			assert.Equal(t, int32(1), closed.Load())
		})
	}
}

func BenchmarkWorker(b *testing.B) {
	path, err := workertest.Build(b.Context(), b.TempDir())
	require.NoError(b, err)

	r := runner.New(runner.Config{Executable: path})
	volume, cache := b.TempDir(), filepath.Join(b.TempDir(), "cache")

	for i := range b.N {
		_, err := r.Run(b.Context(), runner.Task{
			Request:     workertest.Request(protocol.VerbBackup, workertest.Succeed, cache),
			OpenVolume:  func(context.Context) (*os.File, error) { return os.Open(volume) },
			OpenStorage: func(context.Context) (runner.Storage, error) { return hello{}, nil },
		}, runner.Watch{})
		require.NoError(b, err, fmt.Sprint(i))
	}
}
