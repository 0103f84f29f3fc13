//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// Restores whose pods never come to their gates end within the bounds, and say why.
func TestARestoreOfPodsThatNeverRunEndsWithAReason(t *testing.T) {
	c := open(t)
	c.settings([]string{"--gate-timeout=15s"},
		[]string{"--unscheduled-timeout=5s", "--gate-timeout=15s", "--missing-pod-timeout=5s"})

	for name, test := range map[string]struct {
		spoil  func(c *cell)
		reason string
		// late: the pod runs after all.
		late bool
	}{
		"no node has the label that it wants": {
			spoil:  func(c *cell) { c.want(false) },
			reason: "PodUnscheduled",
			late:   true,
		},
		"the namespace does not admit it": {
			spoil: func(c *cell) {
				ns := &corev1.Namespace{}
				ns.Name = c.namespace
				ns.Labels = map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
				require.NoError(c.t, c.Create(c.ctx, ns))
			},
			reason: "PodNotFound",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := open(t)
			require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
			c.want(true)
			t.Cleanup(func() { c.want(false) })
			c.createPodWith("never", nil, []string{"scratch"}, func(s *corev1.PodSpec) {
				s.NodeSelector = map[string]string{ownLabel + c.namespace: "true"}
			})
			require.NoError(t, lab.FillVolume(c.volume(c.podAgain()), lab.Data{Files: 10, Bytes: 1 << 16, Seed: 80}))
			c.backup(c.namespace)
			c.deleteNamespace()
			test.spoil(c)

			start := time.Now()
			require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace))

			r, err := c.WaitRestore(c.ctx, c.namespace)
			require.NoError(t, err)
			assert.Less(t, time.Since(start), time.Minute)
			assert.Equal(t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase)

			jobs, err := c.VolumeRestores(c.ctx, c.namespace)
			require.NoError(t, err)
			require.Len(t, jobs, 1)
			assert.Equal(t, v1alpha1.PhaseFailed, jobs[0].Status.Phase)
			assert.Equal(t, test.reason, jobs[0].Status.Reason, jobs[0].Status.Message)
			assert.Contains(t, c.told(c.namespace), test.reason)

			if test.late {
				c.want(true)
				assert.Contains(t, c.gateMessage(), test.reason, "a pod that comes too late says so, and does not wait")
			}
		})
	}
}

const ownLabel = "estiba.test/"

// want gives the first node the label that the cell's pods want, or takes it away.
func (c *cell) want(there bool) {
	c.t.Helper()

	change := "-"
	if there {
		change = "=true"
	}

	_, err := c.Run(context.Background(), "kubectl", "label", "node", firstNode, ownLabel+c.namespace+change)
	require.NoError(c.t, err)
}
