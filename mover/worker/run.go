package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// progressInterval is how often a worker reports progress at most: people read it.
const progressInterval = 500 * time.Millisecond

// Settings is what an engine is built from.
type Settings struct {
	// Verb that the engine will be asked for.
	Verb protocol.Verb
	// Storage is the socket on which the daemon serves the repository's storage.
	// It is the worker's only one, and it can't make others. The engine takes it over.
	Storage *os.File
	// Password, Previous and Seed of the repository; see protocol.Request.
	Password, Previous, Seed string
	// Cache that the engine may use. No other folder can be written.
	Cache protocol.Cache
	// Log goes to the daemon's log.
	Log *slog.Logger
}

// Deps is what a worker needs from its program.
type Deps struct {
	// NewEngine builds the engine. It is called once, behind all fences. If the
	// engine is an io.Closer, it is closed when the job is done. An error that is
	// no *engine.Error counts as CodeInternal.
	NewEngine func(ctx context.Context, s Settings) (engine.Engine, error)
	// SetLinks sets the attributes of symbolic links.
	SetLinks SetLinks
	// Tick is called at regular intervals; see beneath.Tick. Nil watches over no volume.
	Tick func() (call, sync int)
}

// Run is the second stage of a worker, with the arguments that follow the
// command's name. It gives the exit status: 0 if a result was reported, be it a failure.
func Run(args []string, deps Deps) int {
	report := protocol.NewReporter(os.NewFile(protocol.ReportFD, "report"))
	result, err := run(args, deps, report)
	result.Error = protocol.FailureOf(err)

	if err := report.Report(protocol.Report{Result: &result}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	return 0
}

func run(args []string, deps Deps, report *protocol.Reporter) (protocol.Result, error) {
	signaled, ignore := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer ignore()

	ctx, stop := context.WithCancelCause(signaled)
	defer stop(nil)

	windUp := heedWindUp()

	s, err := lockedIn(args, report)
	if err != nil {
		return protocol.Result{}, err
	}

	pipe := os.NewFile(protocol.RequestFD, "request")
	defer func() { _ = pipe.Close() }() // Only read from; closed before in most cases.

	request, err := readRequest(pipe, s)
	if err != nil {
		return protocol.Result{}, err
	}

	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))

	// Writing down what there is, after the job was cancelled, takes memory too.
	fitting, fitted := context.WithCancel(context.WithoutCancel(ctx))
	defer fitted()

	go fitMemory(fitting, request.MemoryMost)
	go watchVolume(ctx, request.VolumeStall, deps.Tick, stop)

	if request.Verb == protocol.VerbSetLinks {
		result, err := setLinks(ctx, request, deps.SetLinks)
		return result, withHung(ctx, err)
	}

	e, err := newEngine(ctx, request, deps, log)
	if err != nil {
		return protocol.Result{}, err
	}

	// Only a restore is answered later on.
	if request.Verb != protocol.VerbRestore {
		_ = pipe.Close() // Only read from.
	}

	j := job{engine: e, request: request, progress: newThrottle(report, time.Now), permit: permit{report, pipe}, windUp: windUp}
	result, err := j.do(ctx)
	closeEngine(e, log)

	return result, withHung(ctx, err)
}

// heedWindUp returns a channel that is closed when the daemon asks the worker to wind up. The signal is heeded until the
// process ends: one that has just done its job must not die of it before it has said so.
func heedWindUp() <-chan struct{} {
	signaled, windUp := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signaled, protocol.WindUp)

	go func() {
		<-signaled
		close(windUp)
	}()

	return windUp
}

// lockedIn puts up the fences of the second stage, and reports which ones stand.
func lockedIn(args []string, report *protocol.Reporter) (protocol.Surroundings, error) {
	s, err := protocol.ParseSurroundings(args)
	if err != nil {
		return s, err
	}

	fences, err := closeIn(s)
	if err != nil {
		return s, err
	}

	if err := report.Report(protocol.Report{Fences: &fences}); err != nil {
		return s, err
	}

	if s.Strict && len(fences.Missing) > 0 {
		return s, missing(fences)
	}

	return s, nil
}

// closeIn puts up the fences of the second stage, and says which ones stand.
func closeIn(s protocol.Surroundings) (protocol.Fences, error) {
	var fences protocol.Fences
	if err := json.Unmarshal([]byte(s.Fences), &fences); err != nil {
		return fences, fmt.Errorf("read the first stage's report: %w", err)
	}

	if err := dieWithParent(s.Parent); err != nil {
		return fences, err
	}

	// Neither another process nor a core file may show the password.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fences, fmt.Errorf("make the worker not dumpable: %w", err)
	}

	for fd := protocol.RequestFD; fd < firstForeign(s.Verb); fd++ {
		unix.CloseOnExec(fd)
	}

	held, err := permitted()
	if err != nil {
		return fences, err
	}

	if extra := held &^ wanted(s.Verb); extra != 0 {
		return fences, fmt.Errorf("the worker holds capabilities that its direction must not have: %v", extra.names())
	}

	fences.Capabilities = held.names()
	fences.Lacking = (wanted(s.Verb) &^ held).names()

	if err := refuseCalls(s.Verb); err != nil {
		fences.Missing = append(fences.Missing, protocol.FenceSeccomp)
		fences.Detail = joinDetails(fences.Detail, err.Error())
	} else {
		fences.Seccomp = true
	}

	return fences, nil
}

func joinDetails(a, b string) string {
	if a == "" {
		return b
	}

	return a + "; " + b
}

func readRequest(pipe io.Reader, s protocol.Surroundings) (protocol.Request, error) {
	request, err := protocol.ReadRequest(pipe)
	if err != nil {
		return protocol.Request{}, err
	}

	if request.Verb != s.Verb || request.Cache.Dir != s.CacheDir {
		return protocol.Request{}, engine.Errorf(engine.CodeInvalidRequest,
			"request to the worker: verb %s and cache %s are not those that the worker was fenced for, %s and %s",
			request.Verb, request.Cache.Dir, s.Verb, s.CacheDir)
	}

	return request, nil
}

func newEngine(ctx context.Context, r protocol.Request, deps Deps, log *slog.Logger) (engine.Engine, error) {
	e, err := deps.NewEngine(ctx, Settings{
		Verb:     r.Verb,
		Storage:  os.NewFile(protocol.StorageFD, "storage"),
		Password: r.Password, Previous: r.Previous, Seed: r.Seed,
		Cache: r.Cache,
		Log:   log,
	})
	if err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}

	return e, nil
}

// closeEngine only logs what goes wrong: what the job did has been read back by then.
func closeEngine(e engine.Engine, log *slog.Logger) {
	c, ok := e.(io.Closer)
	if !ok {
		return
	}

	if err := c.Close(); err != nil {
		log.Warn("the engine could not be closed", "error", err)
	}
}

// job is one call of the engine.
type job struct {
	engine   engine.Engine
	request  protocol.Request
	progress *throttle
	permit   permit
	// windUp is closed when a backup is to write down what it has, and to end.
	windUp <-chan struct{}
}

// permit is asked for before a restore writes.
type permit struct {
	report *protocol.Reporter
	pipe   io.Reader
}

// ask says that the volume is about to be changed, and waits until that is written
// down: whoever takes the job up after a crash must know whose data it finds.
func (p permit) ask(_ context.Context, snapshot string) error {
	if err := p.report.Report(protocol.Report{Writing: snapshot}); err != nil {
		return engine.Errorf(engine.CodeInternal, "ask to write: %w", err)
	}

	if err := protocol.ReadPermit(p.pipe); err != nil {
		return engine.Errorf(engine.CodeInternal, "ask to write: %w", err)
	}

	return nil
}

func (j job) do(ctx context.Context) (protocol.Result, error) {
	switch r := j.request; r.Verb {
	case protocol.VerbCreateRepository:
		return protocol.Result{}, j.engine.CreateRepository(ctx, r.Format)
	case protocol.VerbOpenRepository:
		return protocol.Result{}, j.engine.CreateRepository(ctx, engine.FormatExisting)
	case protocol.VerbRotateKey:
		return protocol.Result{}, j.engine.RotateKey(ctx)
	case protocol.VerbBackup:
		q := *r.Backup
		q.Root = os.NewFile(protocol.VolumeFD, "volume")
		q.WindUp = j.windUp

		result, err := j.engine.Backup(ctx, q, j.progress.take)
		j.progress.flush()

		return protocol.Result{Backup: &result}, err
	case protocol.VerbRestore:
		return j.restore(ctx)
	case protocol.VerbForget:
		result, err := j.engine.Forget(ctx, *r.Forget)

		return protocol.Result{Forget: &result}, err
	default:
		snapshots, err := j.engine.Snapshots(ctx)

		return protocol.Result{Snapshots: snapshots}, err
	}
}
