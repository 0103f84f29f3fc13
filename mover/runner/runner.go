package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/time/rate"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// Runner runs tasks in worker processes. It may be used by several goroutines at a time.
type Runner struct {
	config Config
	slots  *slots
	pool   *pool
	stuck  *stuck
}

// New makes a Runner.
func New(c Config) *Runner {
	c = c.withDefaults()

	return &Runner{config: c, slots: newSlots(c), pool: &pool{total: c.memory()}, stuck: &stuck{changed: c.Metrics.WorkersStuck}}
}

// Run waits for a slot, runs the task in a worker process and gives its result.
// When ctx is done, the worker is told to stop, and killed after CancelGrace.
//
// Every error is, or wraps, an *engine.Error: that of the engine, or
// CodeCanceled (with the cause of ctx in its chain), CodeWorkerDied,
// CodeMemoryExceeded, CodeFenceMissing or CodeInternal. Errors of OpenVolume and
// OpenStorage are passed on.
func (r *Runner) Run(ctx context.Context, t Task, w Watch) (protocol.Result, error) {
	w = w.withDefaults()

	t.Request.Version = protocol.Version
	t.Request.Strict = r.config.Strict

	if err := t.validate(); err != nil {
		return protocol.Result{}, err
	}

	slot, err := r.slots.acquire(ctx, want{frozen: t.Frozen, alone: t.Alone, turn: t.Turn, name: t.Name}, w.Queued)
	if err != nil {
		return protocol.Result{}, canceled(t.Request.Verb, err)
	}
	defer slot.release()

	r.config.fit(&t, slot)
	w.Started()

	result, err := r.work(ctx, t, w)
	if err == nil && t.Request.Verb == protocol.VerbRestore && result.Links > 0 {
		err = r.setLinks(ctx, t, result.Restore)
	}

	r.config.Metrics.WorkerEnded(string(t.Request.Verb), string(engine.CodeOf(err)))

	return result, err
}

// linkList begins the names of the lists in which restores leave the attributes of symbolic links.
const linkList = "links-"

// fit sets what depends on the machine and on who else runs.
func (c Config) fit(t *Task, of *slot) {
	q := &t.Request
	q.MemoryCeiling, q.MemoryMost, q.VolumeStall = c.ceiling(of), c.memory(), c.VolumeStall

	parallel := c.parallel(q.MemoryCeiling)
	if t.Alone {
		parallel = 1
	}

	// What the task's maker holds is left as it is.
	if q.Backup != nil {
		b := *q.Backup
		b.Parallel, b.FlushAfter, q.Backup = parallel, flushAfter(q.MemoryCeiling), &b
	}

	if q.Restore != nil {
		b := *q.Restore
		b.Parallel, q.Restore = parallel, &b
		q.Links = linkList + t.Name
	}
}

// setLinks does the rest of a restore: what its own worker may not do, because it reads what strangers wrote.
func (r *Runner) setLinks(ctx context.Context, t Task, restored *engine.RestoreResult) error {
	t.Request.LeaveOut = t.Request.Restore.OnFileError == engine.FileErrorSkip
	t.Request.Verb, t.Request.Restore, t.BeforeWrite = protocol.VerbSetLinks, nil, nil
	t.Request.Password, t.Request.Previous = "", ""
	t.OpenStorage = func(context.Context) (Storage, error) { return noStorage{}, nil }

	rest, err := r.work(ctx, t, Watch{}.withDefaults())
	if rest.Restore != nil {
		restored.Summary.Omissions = engine.MergeOmissions(restored.Summary.Omissions, rest.Restore.Summary.Omissions)
	}

	return err
}

// noStorage is for a worker that needs none.
type noStorage struct{}

// Serve closes the socket.
func (noStorage) Serve(_ context.Context, socket *os.File) error { return socket.Close() }

func (t Task) validate() error {
	if err := t.Request.Validate(); err != nil {
		return err
	}

	if t.OpenStorage == nil || (t.OpenVolume != nil) != t.Request.Verb.MovesVolume() {
		return engine.Errorf(engine.CodeInvalidRequest,
			"task for a worker: verb %s needs a storage, and a volume exactly if it moves one", t.Request.Verb)
	}

	return nil
}

// work starts the worker and stays with it until it has ended.
func (r *Runner) work(ctx context.Context, t Task, w Watch) (protocol.Result, error) {
	storage, err := t.OpenStorage(ctx)
	if err != nil {
		return protocol.Result{}, fmt.Errorf("open the repository's storage: %w", err)
	}
	defer r.closeStorage(storage)

	p, err := r.startWorker(ctx, t)
	if err != nil {
		return protocol.Result{}, err
	}

	s := &supervision{process: p, config: r.config, task: t, watch: w, permits: make(chan error, 1), pool: r.pool, share: r.pool.join(t.Frozen, t.Request.MemoryCeiling)}

	result, err := s.run(ctx, storage)
	if s.left {
		r.leave(s)
	} else {
		r.pool.leave(s.share)
	}

	return result, err
}

// leave leaves a worker behind that was killed and doesn't end: the slot is for others. What it holds of memory stays used, and its
// volume is not tried again, until it has ended.
func (r *Runner) leave(s *supervision) {
	r.pool.abandon(s.share)
	r.stuck.add(s.task.Volume, s.process.pid())

	go func() {
		<-s.process.ended
		r.pool.leave(s.share)
		r.stuck.remove(s.process.pid())
	}()
}

// startWorker opens the volume as late, and closes it as early, as can be.
func (r *Runner) startWorker(ctx context.Context, t Task) (*process, error) {
	var volume *os.File

	if t.OpenVolume != nil {
		if err := r.stuck.refuse(t.Volume); err != nil {
			return nil, err
		}

		f, err := t.OpenVolume(ctx)
		if err != nil && ctx.Err() != nil {
			return nil, canceled(t.Request.Verb, context.Cause(ctx))
		}

		if err != nil {
			return nil, fmt.Errorf("open the volume: %w", err)
		}
		defer func() { _ = f.Close() }()

		volume = f
	}

	p, err := start(r.config, t.Request, volume)
	if err != nil {
		return nil, engine.Errorf(engine.CodeInternal, "start a worker: %w", err)
	}

	return p, nil
}

// closeStorage only logs what goes wrong: the job's result does not depend on it any more.
func (r *Runner) closeStorage(s Storage) {
	c, ok := s.(io.Closer)
	if !ok {
		return
	}

	if err := c.Close(); err != nil {
		r.config.Log.Info("the repository's storage could not be closed", "error", err.Error())
	}
}

func canceled(v protocol.Verb, cause error) error {
	return engine.Errorf(engine.CodeCanceled, "%s: %w", v, cause)
}

// supervision is the watch over one worker.
type supervision struct {
	process *process
	config  Config
	task    Task
	watch   Watch

	pool     *pool
	share    *share
	result   *protocol.Result
	lastLine string
	// spent is the memory for which the worker was told to end, or was killed; nil if it was not.
	spent *spent
	// stopping says that the worker was told to end.
	stopping bool
	// silent says that it was killed because it never put up its fences.
	silent bool
	// left says that it was killed and left behind, because it did not end.
	left bool
	// overdue fires when a worker is to be killed that was told to end, or has nothing more to do.
	overdue <-chan time.Time
	// leaving fires when a worker that was killed is to be left behind.
	leaving <-chan time.Time
	// asked says that the worker has asked to write, and permits takes the answer.
	asked   bool
	permits chan error
	// refused is why it must not.
	refused error
}

// run serves, reads and watches until the worker is gone.
func (s *supervision) run(ctx context.Context, storage Storage) (protocol.Result, error) {
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})

	go func() {
		defer close(served)

		if err := storage.Serve(serving, s.process.storage); err != nil {
			s.config.Log.V(1).Info("the worker's storage ended", "error", err.Error())
		}
	}()

	logged := make(chan string, 1)
	reports := make(chan protocol.Report)
	readErr := make(chan error, 1)

	go func() {
		logged <- forwardLog(s.process.log, s.config.Log.WithValues("worker", s.process.pid()), s.config.Clock)
	}()
	go func() {
		defer close(reports)

		err := s.readReports(serving, reports)
		if err != nil {
			s.process.kill() // nobody listens to it any more
		}

		readErr <- err
	}()

	s.watchOver(ctx, reports)
	stopServing()
	<-served

	s.lastLine = <-logged
	err := <-readErr

	closeAll(s.process.request, s.process.reports, s.process.log)

	return s.verdict(ctx, err)
}

// The reports a second that are listened to, and how many may come at once: an honest
// worker has some one a second, and each has the daemon look at its job.
const reportRate, reportsAtOnce = 20, 100

// readReports reads reports at a bounded pace, until the worker has ended: what is
// left then is read at once.
func (s *supervision) readReports(ctx context.Context, reports chan<- protocol.Report) error {
	pacing, stop := context.WithCancel(ctx)
	defer stop()

	go func() {
		select {
		case <-s.process.ended:
			stop()
		case <-pacing.Done():
		}
	}()

	pace := rate.NewLimiter(reportRate, reportsAtOnce)

	// The caller says what was read.
	return protocol.ReadReports(s.process.reports, func(p protocol.Report) {
		_ = pace.Wait(pacing) // it fails when there is nothing to wait for any more
		reports <- p
	})
}

// watchOver returns when the worker has ended, or was left behind, and its reports are read.
func (s *supervision) watchOver(ctx context.Context, reports <-chan protocol.Report) {
	poll := s.config.Clock.NewTicker(s.config.MemoryPoll)
	defer poll.Stop()

	canceled, abort, ended, begin := ctx.Done(), s.task.abort, s.process.ended, s.config.Clock.After(s.config.StartGrace)

	for reports != nil || ended != nil {
		select {
		case p, ok := <-reports:
			if !ok {
				reports = nil
				continue
			}

			begin = nil

			s.answer(ctx, p)
			s.take(p)
		case s.refused = <-s.permits:
			// A worker that has ended meanwhile needs no answer.
			_ = protocol.WritePermit(s.process.request, s.refused)
		case <-ended:
			ended = nil
			s.process.endReading()
		case <-s.leaving:
			s.left = ended != nil
			ended = nil
			s.process.endReading()
		case <-canceled:
			canceled = nil
			s.stopping = true
			s.terminate()
		case <-abort:
			abort = nil
			s.stopping = true
			s.kill()
		case <-begin:
			s.silent = true
			s.kill()
		case <-s.overdue:
			s.kill()
		case <-poll.C():
			s.checkMemory()
		}
	}
}

// terminate asks the worker to end.
func (s *supervision) terminate() {
	s.overdue = s.config.Clock.After(s.config.CancelGrace)
	s.process.terminate()
}

// kill ends the worker. What waits for a dead disk or mount ends with that wait only, whatever it is told.
func (s *supervision) kill() {
	s.process.kill()

	if s.leaving == nil {
		s.leaving = s.config.Clock.After(s.config.LeaveGrace)
	}
}

// answer has the question answered whether the worker may write, if it asks that.
func (s *supervision) answer(ctx context.Context, p protocol.Report) {
	if p.Writing == "" || s.asked {
		return
	}

	s.asked = true

	if s.task.BeforeWrite == nil {
		s.permits <- nil
		return
	}

	go func() { s.permits <- s.task.BeforeWrite(ctx, p.Writing) }()
}

// take passes a report on. After the result, the worker has to end soon.
func (s *supervision) take(p protocol.Report) {
	if p.Fences != nil {
		s.watch.Fences(*p.Fences)
	}

	if p.Progress != nil {
		s.watch.Progress(*p.Progress)
	}

	if p.Result != nil && s.result == nil {
		s.result = p.Result
		s.overdue = s.config.Clock.After(s.config.ExitGrace)
	}
}

// checkMemory asks the worker to end, or kills it, once it uses memory that is not there.
func (s *supervision) checkMemory() {
	used, err := memoryOf(s.process.pid())
	if err != nil {
		return // It has just ended.
	}

	together, q := s.pool.take(s.share, used)
	if q == fits || q == tight && s.spent != nil {
		return
	}

	if s.spent == nil {
		s.spent = &spent{used: used, together: together, beyond: used > nearly(s.task.Request.MemoryCeiling)}
	}

	if q == over {
		s.kill()
		return
	}

	s.windUp()
}

// windUp asks the worker to end for want of memory. A backup then writes down what it has. It may take its time for
// that as it does for all else: what hangs at its volume or its store is found there, and its memory is still watched.
func (s *supervision) windUp() {
	if s.task.Request.Verb == protocol.VerbBackup {
		s.process.windUp()
		return
	}

	s.terminate()
}

// verdict says how the job ended.
func (s *supervision) verdict(ctx context.Context, readErr error) (protocol.Result, error) {
	verb := s.task.Request.Verb

	switch {
	case s.refused != nil && !s.stopping:
		return protocol.Result{}, fmt.Errorf("%s: write down that the volume is about to be changed: %w", verb, s.refused)
	case s.result != nil:
		return s.judge(ctx, *s.result)
	case s.spent != nil && !s.stopping:
		return protocol.Result{}, s.spent.err(verb, s.task.Request)
	case s.stopping:
		return protocol.Result{}, canceled(verb, context.Cause(ctx))
	case verb.MovesVolume() && (s.silent || s.left):
		return protocol.Result{}, engine.Errorf(engine.CodeVolumeHung, "%s: the worker hangs and does not end; the last it said: %q", verb, s.lastLine)
	case readErr != nil:
		return protocol.Result{}, engine.Errorf(engine.CodeInternal, "%s: %w", verb, readErr)
	default:
		return protocol.Result{}, engine.Errorf(engine.CodeWorkerDied,
			"%s: the worker ended without a result: %s; the last it said: %q", verb, s.process.status(), s.lastLine)
	}
}

// judge looks at a result as something that a stranger says.
func (s *supervision) judge(ctx context.Context, r protocol.Result) (protocol.Result, error) {
	verb := s.task.Request.Verb
	err := r.Error.Err()

	switch {
	case !r.Answers(verb):
		return protocol.Result{}, engine.Errorf(engine.CodeInternal, "%s: the worker's result is that of another verb", verb)
	case err == nil:
		return r, nil
	case !known(engine.CodeOf(err)):
		return r, engine.Errorf(engine.CodeInternal, "%s: the worker failed with a code that is unknown here (%.40q): %s", verb, engine.CodeOf(err), err)
	case s.spent != nil && !s.stopping:
		return r, s.spent.err(verb, s.task.Request)
	case s.stopping && engine.CodeOf(err).Retryable():
		// What it was talking to may have ended before it.
		return r, canceled(verb, errors.Join(context.Cause(ctx), err))
	case engine.CodeOf(err) != engine.CodeCanceled:
		return r, fmt.Errorf("%s: %w", verb, err)
	case s.stopping:
		return r, canceled(verb, context.Cause(ctx))
	default:
		return r, engine.Errorf(engine.CodeWorkerDied, "%s: the worker was told to stop, and not by the daemon: %w", verb, err)
	}
}
