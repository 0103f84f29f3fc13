//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
)

// within returns the cell for a part of the test.
func (c *cell) within(t *testing.T) *cell {
	t.Helper()

	part := *c
	part.t = t

	return &part
}

// restorePartial restores the cell's backup, which must end PartiallyFailed, and returns what is said of it.
func (c *cell) restorePartial(name string) string {
	c.t.Helper()
	require.NoError(c.t, c.Restore(c.ctx, name, c.namespace))

	r, err := c.WaitRestore(c.ctx, name)
	require.NoError(c.t, err)

	describe, err := c.Velero(c.ctx, "restore", "describe", name, "--details")
	require.NoError(c.t, err)
	require.Equal(c.t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase, describe)

	return describe
}

// onlyPod waits until the namespace's Deployment counts its replica and the only
// pod is as it is to be. No container of the application may ever have begun.
func (c *cell) onlyPod(what string, is func(*corev1.Pod) bool) *corev1.Pod {
	c.t.Helper()

	var pods corev1.PodList

	require.NoError(c.t, c.Wait(c.ctx, "the only pod of the Deployment "+what, func(ctx context.Context) (bool, error) {
		var set appsv1.DeploymentList
		if err := c.List(ctx, &set, client.InNamespace(c.namespace)); err != nil {
			return false, err
		}

		if err := c.List(ctx, &pods, client.InNamespace(c.namespace)); err != nil {
			return false, err
		}

		for _, p := range pods.Items {
			for _, s := range p.Status.ContainerStatuses {
				if s.State.Waiting == nil || s.RestartCount > 0 {
					return false, fmt.Errorf("container %s of pod %s has begun: %v", s.Name, p.Name, s.State)
				}
			}
		}

		return len(set.Items) == 1 && set.Items[0].Status.Replicas == 1 && len(pods.Items) == 1 && is(&pods.Items[0]), nil
	}))

	return &pods.Items[0]
}

// hideDaemonSet takes the label off the DaemonSet by which the plugin finds it, until the function that it gives is called.
func (c *cell) hideDaemonSet() (found func()) {
	c.t.Helper()

	label := func(value string) {
		set, err := c.daemonSet(c.ctx)
		require.NoError(c.t, err)

		before := set.DeepCopy()
		set.Labels[contract.LabelComponent] = value
		require.NoError(c.t, c.Patch(c.ctx, set, client.MergeFrom(before)))
	}

	found = func() { label(contract.ComponentNode) }
	c.t.Cleanup(found)
	label("hidden")

	return found
}

// controller runs the controller with these flags until the test ends.
func (c *cell) controller(flags ...string) {
	c.t.Helper()

	run := func(flags []string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		key := client.ObjectKey{Namespace: c.Namespace, Name: "estiba-controller"}

		var d appsv1.Deployment
		require.NoError(c.t, c.Get(ctx, key, &d))

		before := d.DeepCopy()
		d.Spec.Template.Spec.Containers[0].Args = flags
		require.NoError(c.t, c.Patch(ctx, &d, client.MergeFrom(before)))
		require.NoError(c.t, c.Wait(ctx, "the changed controller", func(ctx context.Context) (bool, error) {
			err := c.Get(ctx, key, &d)
			s := d.Status

			return s.ObservedGeneration == d.Generation && s.UpdatedReplicas == 1 && s.Replicas == 1 && s.ReadyReplicas == 1, err
		}))
	}

	c.t.Cleanup(func() { run(nil) })
	run(flags)
}
