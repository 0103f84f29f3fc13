package runner

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// endOfReading is how long the pipes of a dead worker may stay open. It has no
// children, so they are at their end already.
const endOfReading = 5 * time.Second

// process is a running worker, and our ends of its descriptors.
type process struct {
	cmd     *exec.Cmd
	request *os.File
	reports *os.File
	log     *os.File
	storage *os.File
	// ended is closed when the worker has ended.
	ended chan struct{}
}

// start starts a worker and hands it its request.
func start(c Config, r protocol.Request, volume *os.File) (*process, error) {
	e, err := newEnds()
	if err != nil {
		return nil, err
	}
	defer e.closeTheirs()

	p := &process{
		cmd:     command(c, r, e, volume),
		request: e.requestOurs,
		reports: e.reportsOurs,
		log:     e.logOurs,
		storage: e.storageOurs,
		ended:   make(chan struct{}),
	}

	if err := p.begin(); err != nil {
		e.closeOurs()
		return nil, err
	}

	go func() {
		// A worker that ends before it has read all says so by a report, or by its death.
		_ = protocol.WriteRequest(p.request, r)

		// A restore is answered later on, see protocol.Permit.
		if r.Verb != protocol.VerbRestore {
			_ = p.request.Close()
		}
	}()

	return p, nil
}

func command(c Config, r protocol.Request, e *ends, volume *os.File) *exec.Cmd {
	surroundings := protocol.Surroundings{Verb: r.Verb, CacheDir: r.Cache.Dir, Strict: c.Strict, Parent: os.Getpid()}

	// Without a context: the watch over the worker ends it, gently first.
	cmd := &exec.Cmd{
		Path: c.Executable,
		Args: append([]string{"mover", protocol.CommandLockIn}, surroundings.Args()...),
		Dir:  "/",
	}
	// Nothing of the daemon's environment. The processors are told, because the
	// worker can't read its control group's files.
	cmd.Env = []string{"GOMAXPROCS=" + strconv.Itoa(c.Processors), "TMPDIR=" + r.Cache.Dir}

	if r.MemoryCeiling > 0 {
		cmd.Env = append(cmd.Env, "GOMEMLIMIT="+strconv.FormatInt(softLimit(r.MemoryCeiling), 10))
	}

	cmd.Stdout = e.logTheirs
	cmd.Stderr = e.logTheirs
	cmd.ExtraFiles = []*os.File{e.requestTheirs, e.reportsTheirs, e.storageTheirs}

	if volume != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, volume)
	}

	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}

	return cmd
}

// begin starts the program and has a goroutine wait for its end. Both are done
// by one thread, which stays for that long: the kernel takes the end of the
// thread that started a process for the end of its parent.
func (p *process) begin() error {
	started := make(chan error)

	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		err := p.cmd.Start()
		started <- err

		if err != nil {
			return
		}

		// What became of it is in cmd.ProcessState.
		_ = p.cmd.Wait()

		close(p.ended)
	}()

	if err := <-started; err != nil {
		return fmt.Errorf("execute %s: %w", p.cmd.Path, err)
	}

	return nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// terminate asks the worker to end. One that has ended already is no error.
func (p *process) terminate() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }

// windUp asks the worker of a backup to write down what it has, and to end.
func (p *process) windUp() { _ = p.cmd.Process.Signal(protocol.WindUp) }

// kill ends the worker.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// endReading bounds the reading of what a dead worker has left in its pipes.
func (p *process) endReading() {
	deadline := time.Now().Add(endOfReading)
	_ = p.reports.SetReadDeadline(deadline)
	_ = p.log.SetReadDeadline(deadline)
}

// status says how the worker ended, for people. Call it after ended is closed.
func (p *process) status() string {
	s := p.cmd.ProcessState
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() && w.Signal() == syscall.SIGKILL {
		return s.String() + " (perhaps by the kernel, for want of memory)"
	}

	return s.String()
}

// ends are both ends of all that lies between the daemon and a worker.
type ends struct {
	requestOurs, requestTheirs *os.File
	reportsOurs, reportsTheirs *os.File
	logOurs, logTheirs         *os.File
	storageOurs, storageTheirs *os.File
}

func newEnds() (*ends, error) {
	var (
		e    ends
		errs [4]error
	)

	e.requestTheirs, e.requestOurs, errs[0] = os.Pipe()
	e.reportsOurs, e.reportsTheirs, errs[1] = os.Pipe()
	e.logOurs, e.logTheirs, errs[2] = os.Pipe()
	e.storageOurs, e.storageTheirs, errs[3] = socketPair()

	if err := errors.Join(errs[:]...); err != nil {
		e.closeOurs()
		e.closeTheirs()

		return nil, fmt.Errorf("make the pipes to the worker: %w", err)
	}

	return &e, nil
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}

	return os.NewFile(uintptr(fds[0]), "storage"), os.NewFile(uintptr(fds[1]), "storage"), nil
}

func (e *ends) closeTheirs() {
	closeAll(e.requestTheirs, e.reportsTheirs, e.logTheirs, e.storageTheirs)
}

func (e *ends) closeOurs() {
	closeAll(e.requestOurs, e.reportsOurs, e.logOurs, e.storageOurs)
}

// closeAll closes what was opened. Closing our own ends of pipes can't lose anything.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
