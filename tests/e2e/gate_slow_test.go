//go:build e2e && slow

package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// A Deployment makes a pod of its own, on empty volumes, for each one that it
// misses. Whatever is wrong with Estiba, a restore must leave it a pod that waits.
func TestSlowNoRestoredApplicationStartsOnEmptyVolumes(t *testing.T) {
	c := open(t)
	a, pod := c.app(classDelete, lab.Data{Files: 20, Bytes: 1 << 20, Seed: 27})
	kept := c.keep(a, pod)
	c.backup(c.namespace)

	t.Run("where nothing is known of Estiba, the pod is held back", func(t *testing.T) {
		c := c.within(t)
		c.deleteNamespace()
		found := c.hideDaemonSet()

		describe := c.restorePartial(c.namespace + "-held")
		assert.Contains(t, describe, "is held back from starting without its data")
		assert.Contains(t, describe, "apply your overlay of Estiba's manifests")

		held := c.onlyPod("to be held back", func(p *corev1.Pod) bool {
			return len(p.Spec.SchedulingGates) == 1 && p.Spec.SchedulingGates[0].Name == contract.SchedulingGate
		})
		assert.Contains(t, held.Annotations[contract.AnnotationHeld], "apply your overlay of Estiba's manifests")

		found()
	})

	t.Run("where no daemon lives, the pod waits at its gate and says why", func(t *testing.T) {
		c := c.within(t)
		c.deleteNamespace()
		c.controller("--gate-timeout=5s")
		back := c.withoutDaemon()

		describe := c.restorePartial(c.namespace + "-gated")
		assert.Contains(t, describe, "NoDaemonOnNode")

		gated := c.onlyPod("to stand at its gate", func(p *corev1.Pod) bool {
			s := p.Status.InitContainerStatuses

			return len(s) == 1 && s[0].Name == contract.GateContainer && s[0].State.Running != nil
		})
		require.NoError(t, c.Wait(c.ctx, "the gate to say that there is no daemon", func(ctx context.Context) (bool, error) {
			logs, err := c.Run(ctx, "kubectl", "logs", "-n", c.namespace, gated.Name, "-c", contract.GateContainer)

			return strings.Contains(logs, "no word from the node's daemon"), err
		}))

		back()
		assert.Contains(t, c.gateMessage(), "NoDaemonOnNode", "with the daemon back, the pod itself says why")
	})

	c.deleteNamespace()
	c.restore(c.namespace+"-again", c.namespace)
	c.same(kept, a, c.pod(a))
}
