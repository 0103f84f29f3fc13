//go:build e2e

package e2e

import (
	"cmp"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// A claim of mode ReadWriteOncePod lets no second pod in, not even for a look: it is
// moved through the pod that has it, and through a staging pod where none does.
func TestAClaimForOnePodAloneIsMovedWithAndWithoutThatPod(t *testing.T) {
	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))

	for _, name := range []string{"taken", "free"} {
		claim := lab.Claim(c.namespace, name, classDelete)
		claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		require.NoError(t, c.Create(c.ctx, claim))
	}

	kept := map[string]string{"free": filepath.Join(c.temp, "kept-free")}

	c.through("free", func(dir string) {
		require.NoError(t, lab.FillVolume(dir, lab.Data{Files: 30, Bytes: 1 << 20, Seed: 61}))
		require.NoError(t, c.Keep(c.ctx, dir, kept["free"]))
	})

	c.createPod("app", []string{"taken"}, nil)
	require.NoError(t, lab.FillVolume(c.volume(c.podAgain()), lab.Data{Files: 40, Bytes: 1 << 20, Seed: 62}))
	kept["taken"] = c.keepVolume(c.podAgain())

	c.backup(c.namespace, "--resource-policies-configmap", c.policy())
	c.unstaged()

	jobs := c.completed(c.namespace, 2)
	slices.SortFunc(jobs, func(a, b v1alpha1.VolumeBackup) int {
		return cmp.Compare(a.Spec.Volume.Pod.Name, b.Spec.Volume.Pod.Name)
	})
	assert.Equal(t, contract.StagingPodName(jobs[0].Name), jobs[0].Status.Pod.Name)
	assert.Equal(t, "app", jobs[1].Spec.Volume.Pod.Name)
	assert.Nil(t, jobs[1].Status.Pod, "no staging pod was asked for")

	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)
	c.unstaged()
	c.sameDir(kept["taken"], c.volume(c.podAgain()))
	c.through("free", func(dir string) { c.sameDir(kept["free"], dir) })

	var claim corev1.PersistentVolumeClaim
	require.NoError(t, c.Get(c.ctx, client.ObjectKey{Namespace: c.namespace, Name: "taken"}, &claim))
	assert.Equal(t, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}, claim.Spec.AccessModes)
}
