package worker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

// child builds the worker's program once for each test that needs it; the build cache makes that cheap.
func child(t *testing.T) string {
	t.Helper()

	path, err := workertest.Build(t.Context(), t.TempDir())
	require.NoError(t, err)

	return path
}

func needRoot(t *testing.T) {
	t.Helper()

	if os.Geteuid() != 0 {
		t.Skip("needs user 0 with all capabilities")
	}
}

func needLandlock(t *testing.T) int {
	t.Helper()

	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		t.Skipf("needs a kernel with Landlock: %v", errno)
	}

	return int(abi)
}

// makeVolume makes a volume beside a sibling, and returns its folder.
func makeVolume(t *testing.T) string {
	t.Helper()

	parent := t.TempDir()
	volume := filepath.Join(parent, "volume")

	for _, dir := range []string{volume, filepath.Join(parent, "sibling")} {
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600))
		require.NoError(t, os.Chown(filepath.Join(dir, "secret"), 4711, 4711))
		require.NoError(t, os.Chmod(filepath.Join(dir, "secret"), 0))
	}

	for _, name := range []string{"own", "victim", "attributed"} {
		require.NoError(t, os.WriteFile(filepath.Join(volume, name), nil, 0o600))
	}

	return volume
}

// ran is what came of a worker.
type ran struct {
	reports []protocol.Report
	log     string
	state   *os.ProcessState
}

func (r ran) fences(t *testing.T) protocol.Fences {
	t.Helper()

	require.NotEmpty(t, r.reports, r.log)
	require.NotNil(t, r.reports[0].Fences, "the first report is that of the fences; log: %s", r.log)

	return *r.reports[0].Fences
}

func (r ran) result(t *testing.T) protocol.Result {
	t.Helper()

	require.NotEmpty(t, r.reports, r.log)
	require.NotNil(t, r.reports[len(r.reports)-1].Result, r.log)

	return *r.reports[len(r.reports)-1].Result
}

func (r ran) findings(t *testing.T) workertest.Findings {
	t.Helper()

	result := r.result(t)
	require.NoError(t, result.Error.Err())

	var f workertest.Findings

	switch {
	case result.Backup != nil:
		require.NoError(t, json.Unmarshal([]byte(workertest.FoundIn(result.Backup.Summary)), &f))
	case result.Restore != nil:
		require.NoError(t, json.Unmarshal([]byte(workertest.FoundIn(result.Restore.Summary)), &f))
	}

	return f
}

// runWorker runs both stages with a request, as the daemon does, and leaks a
// descriptor to them, as the daemon must not.
func runWorker(t *testing.T, program string, r protocol.Request, volume string, tune func(*exec.Cmd)) ran {
	t.Helper()

	requestR, requestW, err := os.Pipe()
	require.NoError(t, err)
	reportR, reportW, err := os.Pipe()
	require.NoError(t, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)

	theirs := []*os.File{requestR, reportW, os.NewFile(uintptr(pair[1]), "storage")}
	ours := os.NewFile(uintptr(pair[0]), "storage")

	if volume != "" {
		dir, err := os.Open(volume)
		require.NoError(t, err)

		theirs = append(theirs, dir)
	}

	leaked, err := os.Open("/etc")
	require.NoError(t, err)

	var log bytes.Buffer

	s := protocol.Surroundings{Verb: r.Verb, CacheDir: r.Cache.Dir, Strict: r.Strict, Parent: os.Getpid()}
	cmd := exec.Command(program)
	cmd.Args = append([]string{"mover", protocol.CommandLockIn}, s.Args()...)
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.ExtraFiles = append(theirs[:len(theirs):len(theirs)], leaked)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	tune(cmd)

	// The parent of a process is the thread's process; PDEATHSIG looks at the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	require.NoError(t, cmd.Start())

	for _, f := range append(theirs, leaked) {
		require.NoError(t, f.Close())
	}

	// A worker that ends before it has read all says so by a report.
	if err := protocol.WriteRequest(requestW, r); !errors.Is(err, unix.EPIPE) {
		require.NoError(t, err)
	}

	require.NoError(t, requestW.Close())
	require.NoError(t, reportR.SetReadDeadline(time.Now().Add(30*time.Second)))

	var got ran

	require.NoError(t, protocol.ReadReports(reportR, func(p protocol.Report) { got.reports = append(got.reports, p) }))
	_ = cmd.Wait()
	require.NoError(t, ours.Close())
	require.NoError(t, reportR.Close())

	got.log, got.state = log.String(), cmd.ProcessState

	return got
}

func untouched(*exec.Cmd) {}

const (
	capChown       = 1 << unix.CAP_CHOWN
	capDACOverride = 1 << unix.CAP_DAC_OVERRIDE
	capRestore     = capChown | capDACOverride | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID
)

func TestFencesFromWithin(t *testing.T) {
	needRoot(t)

	abi := needLandlock(t)
	program := child(t)

	tests := map[string]struct {
		verb         protocol.Verb
		capabilities uint64
		names        []string
	}{
		"a backup reads all of its volume and changes nothing": {protocol.VerbBackup, capDACOverride, []string{"DAC_OVERRIDE"}},
		"a restore writes all of its volume and nothing else": {
			protocol.VerbRestore, capRestore, []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"},
		},
	}

	// The request's pipe has been read and closed, but that of a restore, which is answered there before it writes.
	open := map[protocol.Verb][]int{
		protocol.VerbBackup:  {0, 1, 2, protocol.ReportFD, protocol.StorageFD, protocol.VolumeFD},
		protocol.VerbRestore: {0, 1, 2, protocol.RequestFD, protocol.ReportFD, protocol.StorageFD, protocol.VolumeFD},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := workertest.Expected(test.verb)
			request := workertest.Request(test.verb, workertest.Probe, filepath.Join(t.TempDir(), "cache"))
			volume := makeVolume(t)
			sibling := lookAt(t, filepath.Join(filepath.Dir(volume), "sibling", "secret"))
			got := runWorker(t, program, request, volume, untouched)
			found := got.findings(t)

			assert.Equal(t, sibling, lookAt(t, filepath.Join(filepath.Dir(volume), "sibling", "secret")), "nothing of another volume is changed")

			assert.Equal(t, want, found.Attempts)
			assert.Equal(t, test.capabilities, found.Effective, "effective")
			assert.Equal(t, test.capabilities, found.Permitted, "permitted")
			assert.Zero(t, found.Inheritable, "inheritable")
			assert.Equal(t, test.capabilities, found.Bounding, "bounding: user 0 of a machine holds SETPCAP")
			assert.Equal(t, open[test.verb], found.Descriptors)
			assert.Equal(t, []string{"GOMAXPROCS=2"}, found.Environment)
			assert.Zero(t, found.Dumpable)
			assert.Equal(t, protocol.Fences{LandlockABI: abi, Seccomp: true, Capabilities: test.names}, got.fences(t))
			assert.True(t, got.state.Success(), got.log)
			assert.NotContains(t, got.log, request.Password)
		})
	}
}

// lookAt returns all attributes of a file but the time of the last look at it.
func lookAt(t *testing.T, path string) unix.Stat_t {
	t.Helper()

	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))

	st.Atim = unix.Timespec{}

	return st
}

// A file's handle opens it from any descriptor of its file system, past Landlock
// and past every check of paths, for who holds DAC_READ_SEARCH. The worker is
// handed a right one, and this test opens it, to show what the fence is for.
func TestAHandleThatOpensElsewhereOpensNothingInAWorker(t *testing.T) {
	needRoot(t)
	needLandlock(t)

	program := child(t)

	for _, verb := range []protocol.Verb{protocol.VerbBackup, protocol.VerbRestore} {
		t.Run(string(verb), func(t *testing.T) {
			volume := makeVolume(t)
			secret := filepath.Join(filepath.Dir(volume), "sibling", "secret")

			handle, err := workertest.WriteHandle(volume, secret)
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("the file system of the tests has no handles")
			}

			require.NoError(t, err)

			dir, err := os.Open(volume)
			require.NoError(t, err)

			defer dir.Close()

			fd, err := unix.OpenByHandleAt(int(dir.Fd()), handle, unix.O_RDONLY|unix.O_CLOEXEC)
			require.NoError(t, err, "the handle is right")

			content, err := io.ReadAll(os.NewFile(uintptr(fd), secret))
			require.NoError(t, err)
			require.Equal(t, "secret", string(content))

			request := workertest.Request(verb, workertest.Probe, filepath.Join(t.TempDir(), "cache"))
			found := runWorker(t, program, request, volume, untouched).findings(t)
			assert.Equal(t, "EPERM", found.Attempts["open a handle"])
		})
	}
}

func TestRepositoryWorkNeedsNoCapability(t *testing.T) {
	needLandlock(t)

	program := child(t)

	tests := map[string]struct{ tune func(*exec.Cmd) }{
		"as the user of the tests": {tune: untouched},
		"as an unprivileged user": {tune: func(cmd *exec.Cmd) {
			if os.Geteuid() == 0 {
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65532, Gid: 65532}
			}
		}},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := reachable(t)
			moved := filepath.Join(dir, "worker")
			require.NoError(t, os.Rename(program, moved))

			defer func() { require.NoError(t, os.Rename(moved, program)) }()

			request := workertest.Request(protocol.VerbList, workertest.Succeed, filepath.Join(dir, "cache"))
			got := runWorker(t, moved, request, "", test.tune)

			result := got.result(t)
			require.NoError(t, result.Error.Err(), got.log)
			assert.Equal(t, []engine.Snapshot{{ID: "listed"}}, result.Snapshots)
			assert.Empty(t, got.fences(t).Capabilities)
			assert.Empty(t, got.fences(t).Missing)
		})
	}
}

// reachable makes a folder that every user can write and come to.
func reachable(t *testing.T) string {
	t.Helper()

	dir, err := os.MkdirTemp("/tmp", "estiba-worker-") //nolint:usetesting // nobody else can come to the folder of t.TempDir
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o777))

	return dir
}

func TestRefusedBeforeTheJob(t *testing.T) {
	program := child(t)

	tests := map[string]struct {
		request func(protocol.Request) protocol.Request
		tune    func(*exec.Cmd)
		code    engine.Code
		message string
	}{
		"another verb than the one it is fenced for": {
			request: func(r protocol.Request) protocol.Request {
				return workertest.Request(protocol.VerbForget, workertest.Succeed, r.Cache.Dir)
			},
			tune: func(cmd *exec.Cmd) { cmd.Args[2] = "--verb=list" },
			code: engine.CodeInvalidRequest, message: "are not those that the worker was fenced for",
		},
		"a request without its part": {
			request: func(r protocol.Request) protocol.Request { r.Forget = nil; return r },
			tune:    untouched,
			code:    engine.CodeInvalidRequest, message: "its part of the request is missing",
		},
		"a parent that is not the daemon": {
			request: func(r protocol.Request) protocol.Request { return r },
			tune:    func(cmd *exec.Cmd) { cmd.Args[4] = "--parent=1" },
			code:    engine.CodeInternal, message: fmt.Sprintf("the worker's parent is process %d, expected the daemon, process 1", os.Getpid()),
		},
		"an argument that is not known": {
			request: func(r protocol.Request) protocol.Request { return r },
			tune:    func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "--volume=/") },
			code:    engine.CodeInternal, message: "flag provided but not defined: -volume",
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			base := workertest.Request(protocol.VerbForget, workertest.Succeed, filepath.Join(t.TempDir(), "cache"))
			got := runWorker(t, program, test.request(base), "", test.tune)

			result := got.result(t)
			require.NotNil(t, result.Error)
			assert.Equal(t, test.code, result.Error.Code)
			assert.Contains(t, result.Error.Message, test.message)
		})
	}
}

func TestWithoutLandlock(t *testing.T) {
	needRoot(t)

	program := child(t)
	missing := []protocol.Fence{protocol.FenceLandlock, protocol.FenceReadOnlyVolume}
	hide := func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"mover", workertest.CommandHideLandlock}, cmd.Args[1:]...)
	}

	t.Run("a backup goes on, and says that nothing keeps it from writing", func(t *testing.T) {
		request := workertest.Request(protocol.VerbBackup, workertest.Probe, filepath.Join(t.TempDir(), "cache"))
		got := runWorker(t, program, request, makeVolume(t), hide)

		fences := got.fences(t)
		assert.Equal(t, missing, fences.Missing)
		assert.Zero(t, fences.LandlockABI)
		assert.True(t, fences.Seccomp)
		assert.Contains(t, fences.Detail, "function not implemented")

		found := got.findings(t)
		assert.Equal(t, uint64(capDACOverride), found.Effective)
		assert.Equal(t, "ok", found.Attempts["write an old file"], "this is what the report warns of")
		assert.Equal(t, "EPERM", found.Attempts["open a handle"])
		assert.Equal(t, "EPERM", found.Attempts["signal the daemon"])
		assert.Equal(t, "EPERM", found.Attempts["make a socket"])
	})

	t.Run("in strict mode nothing is done", func(t *testing.T) {
		request := workertest.Request(protocol.VerbBackup, workertest.Probe, filepath.Join(t.TempDir(), "cache"))
		request.Strict = true
		got := runWorker(t, program, request, makeVolume(t), hide)

		result := got.result(t)
		require.NotNil(t, result.Error)
		assert.Equal(t, engine.CodeFenceMissing, result.Error.Code)
		assert.Contains(t, result.Error.Message, "lacks [Landlock ReadOnlyVolume]")
		assert.Len(t, got.reports, 1, "the second stage was not begun")
	})
}

func TestWithoutOpenat2(t *testing.T) {
	needRoot(t)
	needLandlock(t)

	program := child(t)

	tests := map[string]struct {
		hidden  []string
		verb    protocol.Verb
		missing []protocol.Fence
	}{
		"a backup goes on and says so": {
			hidden: []string{workertest.CommandHideOpenat2}, verb: protocol.VerbBackup,
			missing: []protocol.Fence{protocol.FenceOpenat2},
		},
		"a restore goes on and says so": {
			hidden: []string{workertest.CommandHideOpenat2}, verb: protocol.VerbRestore,
			missing: []protocol.Fence{protocol.FenceOpenat2},
		},
		"and without Landlock, both are named": {
			hidden: []string{workertest.CommandHideOpenat2, workertest.CommandHideLandlock}, verb: protocol.VerbBackup,
			missing: []protocol.Fence{protocol.FenceLandlock, protocol.FenceReadOnlyVolume, protocol.FenceOpenat2},
		},
		"work without a volume has no use for it": {
			hidden: []string{workertest.CommandHideOpenat2}, verb: protocol.VerbList,
		},
	}

	for name, test := range tests {
		hide := func(cmd *exec.Cmd) {
			cmd.Args = slices.Concat([]string{"mover"}, test.hidden, cmd.Args[1:])
		}

		for _, strict := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, strict: %v", name, strict), func(t *testing.T) {
				request := workertest.Request(test.verb, workertest.Succeed, filepath.Join(t.TempDir(), "cache"))
				request.Strict = strict

				volume := ""
				if test.verb.MovesVolume() {
					volume = makeVolume(t)
				}

				got := runWorker(t, program, request, volume, hide)
				result := got.result(t)

				if strict && len(test.missing) > 0 {
					require.NotNil(t, result.Error)
					assert.Equal(t, engine.CodeFenceMissing, result.Error.Code)
					assert.Contains(t, result.Error.Message, fmt.Sprintf("lacks %v", test.missing))
					assert.Contains(t, result.Error.Message, "no openat2: function not implemented")
					assert.Len(t, got.reports, 1, "the second stage was not begun")

					return
				}

				require.NoError(t, result.Error.Err(), got.log)
				assert.Equal(t, test.missing, got.fences(t).Missing)
			})
		}
	}
}
