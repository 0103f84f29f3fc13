//go:build e2e

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/contract"
)

// Settings that can't be read are said by name, and cost the backup neither an item nor a volume. They are
// everybody's, so this runs while nothing else does.
func TestABackupWithBadSettingsSaysSoAndLosesNothing(t *testing.T) {
	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.createPod("web", nil, []string{"scratch"})
	c.podAgain()

	configMap := func(name string, labels, data map[string]string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.namespace + "-" + name, Labels: labels}, Data: data}
	}
	ours := map[string]string{contract.LabelPluginConfig: ""}

	t.Run("a policy that can't be read is refused by Velero before the backup begins", func(t *testing.T) {
		c := c.within(t)

		for name, policy := range map[string]string{
			"malformed": "version: v1\nvolumePolicies: [",
			"unknown":   "version: v1\nvolumePolicies:\n- conditions: {moons: [full]}\n  action: {type: skip}\n",
		} {
			cm := configMap(name, nil, map[string]string{"policy.yaml": policy})
			c.create(cm)

			b, err := c.Backup(c.ctx, cm.Name, "--include-namespaces", c.namespace, "--resource-policies-configmap", cm.Name)
			require.NoError(t, err)
			assert.Equal(t, velerov1.BackupPhaseFailedValidation, b.Status.Phase)
			assert.Contains(t, b.Status.ValidationErrors[0], "invalid resource policies")
		}
	})

	t.Run("a key that nobody knows is a warning", func(t *testing.T) {
		c := c.within(t)
		cm := configMap("key", ours, map[string]string{"default-volume": "opt-out"})
		c.create(cm)
		logs := c.complete(cm.Name, velerov1.BackupPhaseCompleted)
		assert.Contains(t, logs, "level=warning")
		assert.Contains(t, logs, "default-volume: there is no such setting; it is ignored")
		require.NoError(t, c.Delete(c.ctx, cm))
	})

	t.Run("a value that isn't allowed is an error", func(t *testing.T) {
		c := c.within(t)
		cm := configMap("value", ours, map[string]string{"default-volumes": "all"})
		c.create(cm)
		assert.Contains(t, c.complete(cm.Name, velerov1.BackupPhasePartiallyFailed), `default-volumes: \"all\" is not allowed, only opt-in, opt-out`)
		require.NoError(t, c.Delete(c.ctx, cm))
	})

	t.Run("two ConfigMaps with the label are an error", func(t *testing.T) {
		c := c.within(t)
		for _, name := range []string{"one", "two"} {
			c.create(configMap(name, ours, nil))
		}

		logs := c.complete(c.namespace+"-both", velerov1.BackupPhasePartiallyFailed)
		assert.Contains(t, logs, c.namespace+"-one")
		assert.Contains(t, logs, c.namespace+"-two")
	})
}

// complete takes a backup that must end in the phase, and have the pod and its volume all the same. It gives the log.
func (c *cell) complete(name string, phase velerov1.BackupPhase) string {
	c.t.Helper()

	b, err := c.Backup(c.ctx, name, "--include-namespaces", c.namespace)
	require.NoError(c.t, err)
	c.requireBackup(b, phase)
	c.completed(name, 1)

	described, err := c.Velero(c.ctx, "backup", "describe", name, "--details")
	require.NoError(c.t, err)
	assert.Contains(c.t, described, c.namespace+"/web")

	logs, err := c.Velero(c.ctx, "backup", "logs", name)
	require.NoError(c.t, err)

	return logs
}
