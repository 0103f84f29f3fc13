//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/tests/testkit/probe"
)

const (
	tokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/..data/token"
	// What a worker has as it is: the password of its one repository.
	password = "the repository's password"

	// The capabilities of each direction, as the kernel writes them.
	capNone    = "0000000000000000"
	capBackup  = "0000000000000002"
	capRestore = "000000000000001b"
)

// A real worker of a backup, and then one of a restore, is stopped in the middle and
// looked at from its node, where nothing can hide.
func TestAWorkerThatRunsHasNothingButItsVolume(t *testing.T) {
	c := open(t)
	pod := c.bigPod(81, 96<<20)
	kept := c.keepVolume(pod)

	c.start(c.namespace)

	w, goOn := c.held(protocol.VerbBackup)
	c.lookAt(w, pod, capBackup)
	goOn()

	b, err := c.WaitBackup(c.ctx, c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, "Completed")
	c.deleteNamespace()
	require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace))

	w, goOn = c.held(protocol.VerbRestore)
	pod, err = c.GatedPod(c.ctx, c.namespace)
	require.NoError(t, err)
	c.lookAt(w, pod, capRestore)
	goOn()

	c.restored(c.namespace)
	c.sameDir(kept, c.volume(c.podAgain()))
}

// held stops the only worker of a verb as soon as it has its password, and returns it.
func (c *cell) held(verb protocol.Verb) (w probe.Process, goOn func()) {
	c.t.Helper()

	signal := func(s unix.Signal) {
		if err := unix.Kill(w.PID, s); err != nil && err != unix.ESRCH {
			require.NoError(c.t, err)
		}
	}
	secrets := canaries{}

	require.NoError(c.t, c.Wait(c.ctx, "a worker that has begun its "+string(verb), func(context.Context) (bool, error) {
		found := probe.Find(protocol.CommandRun, "--verb="+string(verb))
		if len(found) != 1 {
			return false, nil
		}

		w = found[0]
		signal(unix.SIGSTOP)

		if len(secrets) == 0 {
			c.addPassword(secrets)
		}

		has, _, err := w.Search(secrets)
		if err != nil || len(has) == 0 {
			signal(unix.SIGCONT) // Not yet, or it has ended.
		}

		return len(has) > 0, nil
	}))

	goOn = func() { signal(unix.SIGCONT) }
	c.t.Cleanup(goOn)

	return w, goOn
}

// lookAt looks at all that the kernel tells of a worker for the volume of a pod, and at its memory.
func (c *cell) lookAt(w probe.Process, pod *corev1.Pod, capabilities string) {
	c.t.Helper()

	threads, err := w.Status()
	require.NoError(c.t, err)

	parent, err := strconv.Atoi(threads[0]["PPid"])
	require.NoError(c.t, err)

	daemon := probe.Process{PID: parent}
	above, err := daemon.Status()
	require.NoError(c.t, err)

	for _, thread := range threads {
		got := map[string]string{}
		want := map[string]string{
			"CapInh": capNone, "CapPrm": capabilities, "CapEff": capabilities, "CapBnd": above[0]["CapBnd"], "CapAmb": capNone,
			"NoNewPrivs": "1", "Seccomp": "2",
			// The container's, and one of its own.
			"Seccomp_filters": above[0]["Seccomp_filters"] + "+1",
		}

		for name := range want {
			got[name] = thread[name]
		}

		if filters, err := strconv.Atoi(thread["Seccomp_filters"]); assert.NoError(c.t, err) {
			got["Seccomp_filters"] = fmt.Sprintf("%d+1", filters-1)
		}

		assert.Equal(c.t, want, got, "thread %s", thread["Pid"])
	}

	assert.Equal(c.t, capRestore, above[0]["CapBnd"], "the daemon can't have more either")
	c.lookAtSurroundings(w, pod)
	c.lookAtSecrets(w, daemon)
}

// lookAtSurroundings looks at the worker's environment and descriptors.
func (c *cell) lookAtSurroundings(w probe.Process, pod *corev1.Pod) {
	c.t.Helper()

	environment, err := w.Read("environ")
	require.NoError(c.t, err)

	var names []string

	for _, variable := range strings.Split(strings.Trim(string(environment), "\x00"), "\x00") {
		name, _, _ := strings.Cut(variable, "=")
		names = append(names, name)
	}

	assert.ElementsMatch(c.t, []string{"GOMAXPROCS", "GOMEMLIMIT", "TMPDIR"}, names)

	descriptors, err := w.Descriptors()
	require.NoError(c.t, err)

	kinds := map[string]int{}

	for fd, to := range descriptors {
		switch {
		case strings.HasPrefix(to, "/host_pods/"+string(pod.UID)+"/volumes/"):
			kinds["volume"]++
		case strings.HasPrefix(to, "/cache/"):
			kinds["cache"]++
		case strings.HasPrefix(to, "socket:["):
			kinds["socket"]++

			c.connectedToNobody(w, strings.Trim(to, "socket:[]"))
		case strings.HasPrefix(to, "pipe:["), to == "/dev/null", to == "anon_inode:[eventpoll]", to == "anon_inode:[eventfd]":
		default:
			assert.Fail(c.t, "a descriptor that a worker has no use for", "%d: %s", fd, to)
		}
	}

	assert.Positive(c.t, kinds["volume"])
	assert.Equal(c.t, 1, kinds["socket"], "that of its storage: %v", descriptors)
}

// connectedToNobody requires a socket of the worker to be one end of an unnamed pair.
func (c *cell) connectedToNobody(w probe.Process, inode string) {
	c.t.Helper()

	sockets, err := w.Read("net/unix")
	require.NoError(c.t, err)

	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) >= 7 && f[6] == inode {
			assert.Len(c.t, f, 7, "it has no name: %s", line)
			return
		}
	}

	assert.Fail(c.t, "the worker's socket is no unix socket", "inode %s", inode)
}

// lookAtSecrets looks for secrets in the worker's arguments, environment and memory, and, so that
// it is known that they would be found, in the daemon's.
func (c *cell) lookAtSecrets(w, daemon probe.Process) {
	c.t.Helper()

	secrets := canaries{}
	c.addKeys(secrets)
	c.addPassword(secrets)
	c.addStoreKey(secrets)

	token, err := daemon.Read("root" + tokenFile)
	require.NoError(c.t, err)

	parts := strings.Split(string(token), ".")
	require.Len(c.t, parts, 3)
	secrets["the daemon's token"] = []byte(parts[2])

	for _, file := range []string{"cmdline", "environ"} {
		content, err := w.Read(file)
		require.NoError(c.t, err)
		assert.Empty(c.t, secrets.in(content), file)
	}

	found, looked, err := w.Search(secrets)
	require.NoError(c.t, err)
	assert.Greater(c.t, looked, int64(20<<20), "bytes of memory")
	assert.Equal(c.t, []string{password}, slices.Sorted(maps.Keys(found)))

	found, _, err = daemon.Search(secrets)
	require.NoError(c.t, err)
	assert.Contains(c.t, found, "the daemon's token")
	assert.Contains(c.t, found, "the store's secret key")
}
