package runner_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

// counts are the runner's metrics.
type counts struct{ running, stuck atomic.Int64 }

func (c *counts) Workers(running, _ int) { c.running.Store(int64(running)) }

func (c *counts) WorkerEnded(string, string) {}

func (c *counts) WorkersStuck(n int) { c.stuck.Store(int64(n)) }

// frozenVolume makes a volume that can be frozen: whoever writes to it then waits in the kernel, and can't be killed.
// The functions freeze and thaw it.
func frozenVolume(t *testing.T) (volume string, freeze, thaw func()) {
	t.Helper()

	if os.Geteuid() != 0 {
		t.Skip("needs user 0, to mount a file system")
	}

	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	volume = filepath.Join(dir, "volume")

	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 16<<20))
	require.NoError(t, os.Mkdir(volume, 0o700))

	run := func(name string, args ...string) error {
		// The test's own context has ended when it is cleaned up.
		return exec.CommandContext(context.WithoutCancel(t.Context()), name, args...).Run()
	}

	require.NoError(t, run("mkfs.ext4", "-q", image))

	if err := run("mount", "-o", "loop", image, volume); err != nil {
		t.Skipf("needs a loop device: %v", err)
	}

	frozen := false
	thaw = func() {
		if frozen {
			assert.NoError(t, run("fsfreeze", "-u", volume))
		}

		frozen = false
	}

	t.Cleanup(func() {
		thaw()
		assert.NoError(t, run("umount", volume))
	})

	return volume, func() {
		require.NoError(t, run("fsfreeze", "-f", volume))

		frozen = true
	}, thaw
}

// A worker that waits for its volume in the kernel outlives its own death. The job ends nevertheless, the slot is free for other
// volumes, and the volume itself is left alone until it answers.
func TestAVolumeThatHangsCostsABoundedTime(t *testing.T) {
	volume, freeze, thaw := frozenVolume(t)
	metrics := &counts{}
	r := runner.New(runner.Config{
		Executable: child(t), Metrics: metrics, VolumeStall: time.Second, ExitGrace: 200 * time.Millisecond, LeaveGrace: 200 * time.Millisecond,
	})

	job := task(t, protocol.VerbRestore, workertest.Hang)
	job.Volume = "claim app/data"
	job.OpenVolume = func(context.Context) (*os.File, error) { return os.Open(volume) }

	freeze()

	_, err := r.Run(t.Context(), job, runner.Watch{})
	require.Error(t, err)
	assert.Equal(t, engine.CodeVolumeHung, engine.CodeOf(err), err)
	assert.True(t, engine.CodeOf(err).Retryable())
	assert.Equal(t, int64(1), metrics.stuck.Load(), "it was killed, and is there still")
	assert.Zero(t, metrics.running.Load(), "the slot is free")

	_, err = r.Run(t.Context(), job, runner.Watch{})
	require.ErrorContains(t, err, "claim app/data: process")
	assert.Equal(t, engine.CodeVolumeHung, engine.CodeOf(err))
	assert.Equal(t, int64(1), metrics.stuck.Load(), "no second one hangs on the same volume")

	other := task(t, protocol.VerbRestore, workertest.Succeed)
	other.Volume = "claim app/other"
	_, err = r.Run(t.Context(), other, runner.Watch{})
	require.NoError(t, err, "other volumes go on")

	thaw()
	require.Eventually(t, func() bool { return metrics.stuck.Load() == 0 }, bound, 10*time.Millisecond, "it ends when the volume answers")

	_, err = r.Run(t.Context(), job, runner.Watch{})
	require.NoError(t, err)
}

// The same where the worker says nothing: it is cancelled, and doesn't end when it is killed.
func TestACancelledJobDoesNotWaitForAVolumeThatHangs(t *testing.T) {
	volume, freeze, thaw := frozenVolume(t)
	metrics := &counts{}
	r := runner.New(runner.Config{
		Executable: child(t), Metrics: metrics, CancelGrace: 200 * time.Millisecond, ExitGrace: 200 * time.Millisecond, LeaveGrace: 200 * time.Millisecond,
	})

	job := task(t, protocol.VerbRestore, workertest.Hang)
	job.OpenVolume = func(context.Context) (*os.File, error) { return os.Open(volume) }

	freeze()

	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)

	go func() {
		_, err := r.Run(ctx, job, runner.Watch{})
		ended <- err
	}()

	waitUntilItHangs(t)
	cancel(runner.ErrCanceled)
	require.ErrorIs(t, <-ended, runner.ErrCanceled)
	assert.Equal(t, int64(1), metrics.stuck.Load())

	thaw()
	require.Eventually(t, func() bool { return metrics.stuck.Load() == 0 }, bound, 10*time.Millisecond)
}

// waitUntilItHangs waits until a worker is seen to hang at many looks on end: one that only waits for a page of its
// program looks alike for a moment.
func waitUntilItHangs(t *testing.T) {
	t.Helper()

	seen := 0

	require.Eventually(t, func() bool {
		seen++
		if !hangs(t) {
			seen = 0
		}

		return seen == 50
	}, bound, 10*time.Millisecond)
}

// hangs reports whether a thread of a worker waits in the kernel and can't be killed.
func hangs(t *testing.T) bool {
	t.Helper()

	for _, pid := range workers(t) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		require.NoError(t, err)

		for _, f := range stats {
			stat, err := os.ReadFile(f)
			if err == nil && strings.Contains(string(stat), ") D ") {
				return true
			}
		}
	}

	return false
}
