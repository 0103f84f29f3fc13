//go:build e2e && slow

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// Restores whose pods never come to their gates end within the bounds, and say why.
func TestSlowARestoreOfPodsThatNeverRunEndsWithAReason(t *testing.T) {
	c := open(t)
	c.settings([]string{"--gate-timeout=15s"},
		[]string{"--unscheduled-timeout=5s", "--gate-timeout=15s", "--missing-pod-timeout=5s"})

	for name, test := range map[string]struct {
		spoil  func(c *cell)
		reason string
		// late: the pod runs after all.
		late bool
		// alone: what is spoiled is everybody's.
		alone bool
	}{
		"no node has the label that it wants": {
			spoil:  func(c *cell) { c.want(false) },
			reason: "PodUnscheduled",
			late:   true,
		},
		"the gate's image can't be pulled": {
			spoil:  func(c *cell) { c.gateImage("estiba.test/there-is-none:1") },
			reason: "GateImagePull",
			alone:  true,
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
			if !test.alone {
				t.Parallel()
			}

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

// A controller's template knows of no gate, so that a pod that it made anew in the middle would start without its data.
// It is refused, until somebody takes the claim as it is.
func TestSlowAPodThatItsControllerMakesAnewStopsTheRestore(t *testing.T) {
	c := open(t)
	a, _ := c.app(classDelete, lab.Data{Files: 100, Bytes: 24 << 20, Seed: 81})
	c.backup(c.namespace)
	c.deleteNamespace()
	c.limit(slow)
	require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace))
	c.restoring(c.namespace)

	start := time.Now()
	gated, err := c.GatedPod(c.ctx, c.namespace)
	require.NoError(t, err)
	require.NoError(t, c.Delete(c.ctx, gated))

	r, err := c.WaitRestore(c.ctx, c.namespace)
	require.NoError(t, err)
	assert.Less(t, time.Since(start), time.Minute)
	assert.Equal(t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase)

	jobs, err := c.VolumeRestores(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, jobs, 2)

	told := c.told(c.namespace)
	for _, job := range jobs {
		assert.Contains(t, []string{"PodDeleted", "PodNotFound", "PodReplaced", "UngatedPod"}, job.Status.Reason, job.Status.Message)
		assert.Contains(t, told, job.Status.Reason)
	}

	unfilled, err := c.unfilled(c.ctx, "data")
	require.NoError(t, err)
	require.NotEmpty(t, unfilled)

	var pods corev1.PodList
	require.NoError(t, c.List(c.ctx, &pods, client.InNamespace(c.namespace)))

	for _, p := range pods.Items {
		assert.Equal(t, gated.UID, p.UID, "no other pod was made")
	}

	_, err = c.Run(c.ctx, "kubectl", "label", "--namespace="+c.namespace, "pvc", "data", contract.LabelUnfilled+"-")
	require.NoError(t, err)
	assert.NotEqual(t, gated.UID, c.pod(a).UID, "the new pod waits for nobody")
}

const ownLabel = "estiba.test/"

// want sets on the first node the label that the cell's pods want, or takes it away.
func (c *cell) want(there bool) {
	c.t.Helper()

	change := "-"
	if there {
		change = "=true"
	}

	_, err := c.Run(context.Background(), "kubectl", "label", "node", firstNode, ownLabel+c.namespace+change)
	require.NoError(c.t, err)
}

// gateImage has gates made with another image until the test ends: they are made with that of the DaemonSet, which
// keeps its pods.
func (c *cell) gateImage(image string) {
	c.t.Helper()

	set, err := c.daemonSet(c.ctx)
	require.NoError(c.t, err)

	spec := set.Spec.DeepCopy()
	c.t.Cleanup(func() {
		set, err := c.daemonSet(context.Background())
		require.NoError(c.t, err)

		before := set.DeepCopy()
		set.Spec.UpdateStrategy, set.Spec.Template = spec.UpdateStrategy, spec.Template
		require.NoError(c.t, c.Patch(context.Background(), set, client.MergeFrom(before)))
	})

	before := set.DeepCopy()
	set.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
	set.Spec.Template.Spec.Containers[0].Image = image
	require.NoError(c.t, c.Patch(c.ctx, set, client.MergeFrom(before)))
}
