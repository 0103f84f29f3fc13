//go:build e2e && slow

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

func TestSlowARestoreOnANodeThatIsLostEndsWithAReason(t *testing.T) {
	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.createPodOn(secondNode, "far", nil, []string{"scratch"})

	pod := c.podAgain()
	require.NoError(t, lab.FillVolume(c.volume(pod), lab.Data{Files: 200, Bytes: 32 << 20, Seed: 72}))
	c.backup(c.namespace)
	c.deleteNamespace()
	c.settings([]string{"--download-limit=" + slow, "--heartbeat=3s", "--node-lost-timeout=30s"}, []string{"--node-lost-timeout=30s"})
	require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace))
	c.restoring(c.namespace)

	start := time.Now()
	mend := c.cutOff(secondNode)

	r, err := c.WaitRestore(c.ctx, c.namespace)
	require.NoError(t, err)
	assert.Equal(t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase)
	assert.Less(t, time.Since(start), 75*time.Second, "30 s, and what Velero and the controller take to look")
	assert.Contains(t, c.told(c.namespace), "NodeLost")

	jobs, err := c.VolumeRestores(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	assert.Equal(t, v1alpha1.PhaseFailed, jobs[0].Status.Phase)
	assert.Equal(t, "NodeLost", jobs[0].Status.Reason)
	assert.Contains(t, jobs[0].Status.Message, secondNode)

	// Back again, the node tells the pod, which would otherwise wait for ever.
	mend()
	assert.Contains(t, c.gateMessage(), "NodeLost")
}
