package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// self is the running program, also where its file was replaced or removed since.
const self = "/proc/self/exe"

// LockIn is the first stage of a worker, with the arguments that follow the
// command's name. It returns only where the second stage could not be started:
// it has reported why, and returns the exit status.
func LockIn(args []string) int {
	s, err := protocol.ParseSurroundings(args)
	if err == nil {
		err = lockIn(s)
	}

	report := protocol.NewReporter(os.NewFile(protocol.ReportFD, "report"))
	if err := report.Report(protocol.Report{Result: &protocol.Result{Error: protocol.FailureOf(err)}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}

	return 1
}

// lockIn fences the calling thread and executes the second stage on it: the new
// image has this thread's fences, and the other threads end.
func lockIn(s protocol.Surroundings) error {
	runtime.LockOSThread()

	if err := dieWithParent(s.Parent); err != nil {
		return err
	}

	if err := closeOnExec(firstForeign(s.Verb)); err != nil {
		return err
	}

	preferForKilling()

	if err := os.MkdirAll(s.CacheDir, 0o700); err != nil {
		return fmt.Errorf("make the cache folder: %w", err)
	}

	fences, err := fence(s)
	if err != nil {
		return err
	}

	report, err := json.Marshal(fences)
	if err != nil {
		return fmt.Errorf("encode fences: %w", err)
	}

	s.Fences = string(report)
	argv := append([]string{os.Args[0], protocol.CommandRun}, s.Args()...)

	if err := syscall.Exec(self, argv, os.Environ()); err != nil { //nolint:gosec // it executes its own program
		return fmt.Errorf("execute the second stage of the worker: %w", err)
	}

	return errors.New("the second stage of the worker was executed and returned")
}

// fence puts up all fences that must be there before the second stage begins.
func fence(s protocol.Surroundings) (protocol.Fences, error) {
	var fences protocol.Fences

	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fences, fmt.Errorf("set no_new_privs: %w", err)
	}

	abi, err := restrictFiles(s.Verb, s.CacheDir)

	switch {
	case errors.Is(err, errNoLandlock):
		fences.Missing = append(fences.Missing, protocol.FenceLandlock)
		fences.Detail = err.Error()

		if s.Verb == protocol.VerbBackup {
			fences.Missing = append(fences.Missing, protocol.FenceReadOnlyVolume)
		}
	case err != nil:
		return fences, err
	default:
		fences.LandlockABI = abi
	}

	if s.Verb.MovesVolume() {
		if err := probeOpenat2(); err != nil {
			fences.Missing = append(fences.Missing, protocol.FenceOpenat2)
			fences.Detail = joinDetails(fences.Detail, err.Error())
		}
	}

	if s.Strict && len(fences.Missing) > 0 {
		return fences, missing(fences)
	}

	if err := keepCapabilities(wanted(s.Verb)); err != nil {
		return fences, err
	}

	return fences, nil
}

// probeOpenat2 returns why package beneath will not have openat2, or nil. It opens what
// that package opens first.
func probeOpenat2() error {
	fd, err := unix.Openat2(protocol.VolumeFD, ".", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("no openat2: %w", err)
	}

	if err == nil {
		_ = unix.Close(fd)
	}

	return nil // Another error is one of the volume's, which the job will meet.
}

func missing(f protocol.Fences) error {
	return engine.Errorf(engine.CodeFenceMissing,
		"the settings demand all fences around a worker, and this node's kernel lacks %v: %s", f.Missing, f.Detail)
}

// dieWithParent has the kernel end this process when the daemon ends. The parent
// is looked at afterwards: it may have ended before.
func dieWithParent(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie the worker to its daemon: %w", err)
	}

	if got := os.Getppid(); parent != 0 && got != parent {
		return fmt.Errorf("the worker's parent is process %d, expected the daemon, process %d", got, parent)
	}

	return nil
}

func firstForeign(v protocol.Verb) int {
	if v.MovesVolume() {
		return protocol.VolumeFD + 1
	}

	return protocol.VolumeFD
}

// closeOnExec marks all descriptors from first on, so that the second stage does
// not have them, whatever the daemon may have leaked. They are not closed at
// once: some belong to this program's own runtime.
func closeOnExec(first int) error {
	err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}

	// Before Linux 5.11, and under seccomp profiles that do not know the call.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the worker's descriptors: %w", err)
	}

	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}

	return nil
}

// preferForKilling makes the worker the first choice of the kernel when memory
// is short: better one volume than the daemon. Where it can't be had, nothing
// else depends on it.
func preferForKilling() {
	f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()

	if _, err := f.WriteString("1000"); err != nil {
		fmt.Fprintln(os.Stderr, `{"level":"DEBUG","msg":"oom_score_adj could not be raised"}`)
	}
}
