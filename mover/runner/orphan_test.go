package runner_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

// commandDaemon, as the first argument, makes the test binary a daemon: it runs a
// worker that does not end, and says its process ID.
const commandDaemon = "be-the-daemon"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == commandDaemon {
		os.Exit(beTheDaemon(os.Args[2], os.Args[3]))
	}

	os.Exit(m.Run())
}

func beTheDaemon(program, dir string) int {
	said := false
	job := runner.Task{
		Request:     workertest.Request(protocol.VerbBackup, workertest.Deaf, filepath.Join(dir, "cache")),
		OpenVolume:  func(context.Context) (*os.File, error) { return os.Open(dir) },
		OpenStorage: func(context.Context) (runner.Storage, error) { return hello{}, nil },
	}

	_, err := runner.New(runner.Config{Executable: program}).Run(context.Background(), job, runner.Watch{
		Progress: func(engine.Progress) {
			if said {
				return
			}

			// The worker is the child of one of the threads.
			var children []byte

			threads, _ := filepath.Glob("/proc/self/task/*/children")
			for _, t := range threads {
				more, _ := os.ReadFile(t)
				children = append(children, more...)
			}

			said = true

			fmt.Println(strings.Fields(string(children))[0])
		},
	})
	fmt.Fprintln(os.Stderr, err)

	return 1
}

func TestAWorkerDiesWithItsDaemon(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)

	cmd := exec.Command(self, commandDaemon, child(t), t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())

	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)

	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)

	worker, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)

	defer unix.Close(worker)

	require.NoError(t, cmd.Process.Kill())

	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(worker), Events: unix.POLLIN}}, int(bound.Milliseconds()))
	for errors.Is(err, unix.EINTR) {
		ready, err = unix.Poll([]unix.PollFd{{Fd: int32(worker), Events: unix.POLLIN}}, int(bound.Milliseconds()))
	}

	require.NoError(t, err)
	assert.Equal(t, 1, ready, "the worker has ended")

	_ = cmd.Wait()
}
