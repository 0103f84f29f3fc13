//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

func TestAnApplicationComesBackAsItWas(t *testing.T) {
	t.Parallel()

	for name, class := range map[string]string{"Delete": classDelete, "Retain": classRetain} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := open(t)
			a, pod := c.app(class, lab.Data{Files: 500, Bytes: 20 << 20, Seed: 1})
			kept := c.keep(a, pod)
			first, second, restore := c.namespace+"-1", c.namespace+"-2", c.namespace+"-r"

			c.backup(first)
			jobs := c.completed(first, 2)

			describe, err := c.Velero(c.ctx, "backup", "describe", first, "--details")
			require.NoError(t, err)

			for _, job := range jobs {
				assert.Contains(t, describe, job.Spec.Volume.Name)
			}

			claimedBefore := claimedVolume(c)
			c.deleteNamespace()
			c.restore(restore, first)

			pod = c.pod(a)
			c.same(kept, a, pod)
			assert.NotEqual(t, claimedBefore, claimedVolume(c), "the claim must be bound to a new volume")
			assert.Equal(t, contract.GateContainer, pod.Spec.InitContainers[0].Name)

			t.Run("a second backup of the same volume stores only what changed", func(t *testing.T) {
				c.backup(second)
				dirs := c.volumes(a, pod)
				require.NoError(t, os.WriteFile(filepath.Join(dirs["data"], "changed"), []byte("new content"), 0o600))

				third := c.namespace + "-3"
				c.backup(third)

				for _, job := range c.completed(third, 2) {
					assert.True(t, job.Status.Incremental)
					assert.Less(t, job.Status.Summary.StoredBytes, int64(100<<10))
				}
			})

			t.Run("deleting the backup deletes its snapshots", func(t *testing.T) {
				before := c.snapshots()
				_, err := c.Velero(c.ctx, "backup", "delete", first, "--confirm")
				require.NoError(t, err)
				c.waitGone(first)

				after := c.snapshots()
				for _, job := range jobs {
					assert.Contains(t, before, job.Name)
					assert.NotContains(t, after, job.Name)
				}
			})
		})
	}
}

func TestPodsThatShareAClaimGetOneSnapshot(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	require.NoError(t, c.Create(c.ctx, lab.Claim(c.namespace, "shared", classDelete)))

	for _, name := range []string{"one", "two"} {
		c.createPod(name, []string{"shared"}, nil)
	}

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, 2)
	require.NoError(t, err)
	dir, err := c.VolumeDir(c.ctx, &pods[0], "shared")
	require.NoError(t, err)
	require.NoError(t, lab.FillVolume(dir, lab.Data{Files: 50, Bytes: 1 << 20, Seed: 2}))
	kept := filepath.Join(c.temp, "kept")
	require.NoError(t, c.Keep(c.ctx, dir, kept))

	c.backup(c.namespace)
	c.completed(c.namespace, 1)
	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)

	pods, err = c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, 2)
	require.NoError(t, err)
	dir, err = c.VolumeDir(c.ctx, &pods[1], "shared")
	require.NoError(t, err)
	c.sameDir(kept, dir)

	restores, err := c.VolumeRestores(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, restores, 1)
	assert.Equal(t, v1alpha1.PhaseCompleted, restores[0].Status.Phase)
}

func TestBackupsAtTheSameTimeAreBothComplete(t *testing.T) {
	t.Parallel()

	c := open(t)
	a, pod := c.app(classDelete, lab.Data{Files: 300, Bytes: 30 << 20, Seed: 3})
	kept := c.keep(a, pod)
	names := []string{c.namespace + "-x", c.namespace + "-y"}

	for _, name := range names {
		_, err := c.Velero(c.ctx, "backup", "create", name, "--include-namespaces", c.namespace, "--snapshot-volumes=false")
		require.NoError(t, err)
	}

	for _, name := range names {
		b, err := c.WaitBackup(c.ctx, name)
		require.NoError(t, err)
		c.requireBackup(b, "Completed")
		c.completed(name, 2)
	}

	for _, name := range names {
		c.deleteNamespace()
		c.restore(name, name)
		c.same(kept, a, c.pod(a))
	}
}

func TestANamespaceCanBeRestoredUnderAnotherNameAndOnAnotherClass(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace, Name: c.namespace,
			Labels: map[string]string{"velero.io/plugin-config": "", "velero.io/change-storage-class": "RestoreItemAction"},
		},
		Data: map[string]string{c.ownClass(): classRetain},
	})

	a, pod := c.app(c.namespace, lab.Data{Files: 50, Bytes: 1 << 20, Seed: 4})
	kept := c.keep(a, pod)
	c.backup(c.namespace)

	other := c.namespace + "-copy"
	t.Cleanup(func() { assert.NoError(t, c.DeleteNamespace(c.ctx, other)) })
	c.restore(c.namespace, c.namespace, "--namespace-mappings", c.namespace+":"+other)

	copied := &lab.App{Lab: c.Lab, Namespace: other, Class: classRetain}
	c.same(kept, copied, c.pod(copied))

	var claim corev1.PersistentVolumeClaim
	require.NoError(t, c.Get(c.ctx, client.ObjectKey{Namespace: other, Name: "data"}, &claim))
	assert.Equal(t, classRetain, *claim.Spec.StorageClassName)
}

// ownClass makes a class like the others, which no other test's claims are of.
func (c *cell) ownClass() string {
	c.t.Helper()

	var class storagev1.StorageClass
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Name: classDelete}, &class))
	class.ObjectMeta = metav1.ObjectMeta{Name: c.namespace, Annotations: map[string]string{"defaultVolumeType": "local"}}
	c.create(&class)

	return class.Name
}

func TestAReplicaGetsItsOwnEmptyDirBack(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.createReplicas("web", 3)

	labels := map[string]string{"app": "web"}
	pods, err := c.ReadyPods(c.ctx, c.namespace, labels, 3)
	require.NoError(t, err)

	kept := map[string]string{}

	for i := range pods {
		dir, err := c.VolumeDir(c.ctx, &pods[i], "scratch")
		require.NoError(t, err)
		// The same names, sizes and times in each replica, and other content: whoever
		// takes one replica's files for another's is found out.
		require.NoError(t, lab.FillVolume(dir, lab.Data{Files: 20, Bytes: 1 << 18, Seed: uint64(100 + i)}))
		kept[pods[i].Name] = filepath.Join(c.temp, pods[i].Name)
		require.NoError(t, c.Keep(c.ctx, dir, kept[pods[i].Name]))
	}

	c.backup(c.namespace)
	c.backup(c.namespace + "-again")
	c.completed(c.namespace+"-again", 3)
	c.deleteNamespace()
	c.restore(c.namespace, c.namespace+"-again")

	pods, err = c.ReadyPods(c.ctx, c.namespace, labels, 3)
	require.NoError(t, err)

	for i := range pods {
		dir, err := c.VolumeDir(c.ctx, &pods[i], "scratch")
		require.NoError(t, err)
		require.Contains(t, kept, pods[i].Name)
		c.sameDir(kept[pods[i].Name], dir)
	}
}
