//go:build e2e && slow

package e2e

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

func TestSlowAStagingPodThatIsEvictedIsMadeAgain(t *testing.T) {
	c := open(t)
	c.strict()
	kept := c.filled("data", lab.Data{Files: 400, Bytes: 16 << 20, Seed: 15})
	lift := c.limit(slow)

	_, err := c.Velero(c.ctx, "backup", "create", c.namespace, "--include-namespaces", c.namespace,
		"--snapshot-volumes=false", "--resource-policies-configmap", c.policy())
	require.NoError(t, err)

	for _, away := range []func(*corev1.Pod) error{
		func(p *corev1.Pod) error { return c.SubResource("eviction").Create(c.ctx, p, &policyv1.Eviction{}) },
		func(p *corev1.Pod) error { return c.Delete(c.ctx, p, client.GracePeriodSeconds(0)) },
	} {
		job := c.stagedRun()
		assert.EqualValues(t, 1, job.Status.Attempts, "a run that was ended by others is no attempt")

		pods, err := c.stagingPods(c.ctx)
		require.NoError(t, err)
		require.Len(t, pods, 1)
		require.NoError(t, away(&pods[0]))
		c.eventually("another staging pod", func(ctx context.Context) (bool, error) {
			next, err := c.stagingPods(ctx)
			return len(next) == 1 && next[0].UID != pods[0].UID, err
		})
	}

	c.stagedRun()
	lift()

	b, err := c.WaitBackup(c.ctx, c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)
	c.completed(c.namespace, 1)
	c.unstaged()
	c.deleteNamespace()
	c.strict()
	c.restore(c.namespace, c.namespace)
	c.unstaged()
	c.through("data", func(dir string) { c.sameDir(kept, dir) })
}
