//go:build e2e && slow

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
	"github.com/estiba-dev/estiba/tests/testkit/probe"
)

// A tenant can make a folder that no worker has the memory for. Its backup fails by
// name, and nothing else does: not the daemon, nor the volume beside it, in a
// container whose limit leaves each worker the least that it can live with.
func TestSlowAWorkerBeyondItsCeilingDiesAlone(t *testing.T) {
	const (
		mebi = 1 << 20
		// The daemon keeps 256 MiB, and there are two slots and a reserved one: 128 MiB for each.
		limit, ceiling = 640 * mebi, 128 * mebi
	)

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.createPod("both", nil, []string{"crowded", "calm"})
	pod := c.podAgain()

	crowded, err := c.VolumeDir(c.ctx, pod, "crowded")
	require.NoError(t, err)
	calm, err := c.VolumeDir(c.ctx, pod, "calm")
	require.NoError(t, err)
	require.NoError(t, lab.FillVolume(calm, lab.Data{Files: 20, Bytes: 1 << 20, Seed: 85}))
	c.crowd(crowded, 1_000_000)
	c.limitMemory(resource.NewQuantity(limit, resource.BinarySI))

	before := c.daemons()

	c.start(c.namespace)
	require.NoError(t, c.Wait(c.ctx, "a worker to be told its part of the limit", func(context.Context) (bool, error) {
		for _, w := range probe.Find(protocol.CommandRun, "--verb="+string(protocol.VerbBackup)) {
			environment, err := w.Read("environ")
			if err == nil && strings.Contains(string(environment), fmt.Sprintf("GOMEMLIMIT=%d", ceiling/4*3)) {
				return true, nil
			}
		}

		return false, nil
	}))

	said := c.endsPartial(c.namespace)
	assert.Contains(t, said, "MemoryExceeded")

	jobs, err := c.VolumeBackups(c.ctx, c.namespace)
	require.NoError(t, err)

	for _, job := range jobs {
		if job.Spec.Volume.Name == "calm" {
			assert.Equal(t, v1alpha1.PhaseCompleted, job.Status.Phase, job.Status.Message)
			continue
		}

		assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
		assert.Equal(t, "MemoryExceeded", job.Status.Reason)
		assert.Contains(t, job.Status.Message, fmt.Sprintf("its ceiling is %d MiB", 2*ceiling/mebi), "alone it had the part of both slots")
		assert.Contains(t, job.Status.Message, fmt.Sprintf("of the %d MiB that are theirs: raise the container's memory limit or use fewer slots (attempt 3 of 3, the last)", 3*ceiling/mebi))
	}

	assert.Equal(t, before, c.daemons(), "no daemon was started again")
}

// crowd makes names in a folder, as long as they can be: links to as few files as may have so many.
func (c *cell) crowd(dir string, names int) {
	c.t.Helper()

	const most = 60_000 // ext4 takes 65,000 for one file

	var file string

	for i := range names {
		name := filepath.Join(dir, fmt.Sprintf("%08d-%s", i, strings.Repeat("x", 240)))
		if i%most == 0 {
			file = name
			require.NoError(c.t, os.WriteFile(file, nil, 0o600))

			continue
		}

		if err := os.Link(file, name); err != nil {
			require.NoError(c.t, err)
		}
	}
}

// limitMemory sets another limit of the daemons' container until the test ends.
func (c *cell) limitMemory(limit *resource.Quantity) {
	c.t.Helper()

	var before resource.Quantity

	c.change(func(s *corev1.PodSpec) {
		before = s.Containers[0].Resources.Limits[corev1.ResourceMemory]
		s.Containers[0].Resources.Limits[corev1.ResourceMemory] = *limit
	})
	c.t.Cleanup(func() {
		c.change(func(s *corev1.PodSpec) { s.Containers[0].Resources.Limits[corev1.ResourceMemory] = before })
	})
}

// daemons returns how often each of the daemons was started again.
func (c *cell) daemons() map[string]int32 {
	c.t.Helper()

	pods, err := c.ReadyPods(c.ctx, c.Namespace, map[string]string{contract.LabelComponent: contract.ComponentNode}, c.nodes())
	require.NoError(c.t, err)

	restarts := map[string]int32{}
	for _, pod := range pods {
		restarts[string(pod.UID)] = pod.Status.ContainerStatuses[0].RestartCount
	}

	return restarts
}
