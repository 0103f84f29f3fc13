//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
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

// stop deletes the application and keeps its claim.
func (c *cell) stop() {
	c.t.Helper()

	shop := &appsv1.Deployment{}
	shop.Namespace, shop.Name = c.namespace, "shop"
	require.NoError(c.t, c.Delete(c.ctx, shop, client.PropagationPolicy("Foreground")))
	require.NoError(c.t, c.Wait(c.ctx, "the pods to be gone", func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		err := c.List(ctx, &pods, client.InNamespace(c.namespace))

		return len(pods.Items) == 0, err
	}))
}

// jobOf returns the restore's job of a volume: of the claim of that name, or else of the emptyDir.
func (c *cell) jobOf(restore, volume string) v1alpha1.VolumeRestore {
	c.t.Helper()

	jobs, err := c.VolumeRestores(c.ctx, restore)
	require.NoError(c.t, err)

	for _, job := range jobs {
		if claim := job.Spec.Target.Claim; claim == nil && job.Spec.Target.Name == volume || claim != nil && claim.Name == volume {
			return job
		}
	}

	require.Fail(c.t, "no job", "of volume %s in restore %s", volume, restore)

	return v1alpha1.VolumeRestore{}
}

func annotated(key, value string) []string { return []string{"--annotations", key + "=" + value} }

func TestARestoreTouchesNoDataUnlessToldTo(t *testing.T) {
	t.Parallel()

	c := open(t)
	a, pod := c.app(classDelete, lab.Data{Files: 50, Bytes: 1 << 20, Seed: 61})
	old := c.keep(a, pod)
	c.backup(c.namespace)

	// What was written since the backup, and is nowhere else.
	dir := c.volumes(a, pod)["data"]
	write := func(dir string) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "newer/folder"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "newer/folder/file"), []byte("newer"), 0o600))
		require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "newer/link")))
	}
	write(dir)

	newer := filepath.Join(c.temp, "newer")
	require.NoError(t, c.Keep(c.ctx, dir, newer))
	c.stop()

	refused := c.namespace + "-refused"
	require.NoError(t, c.Restore(c.ctx, refused, c.namespace))

	r, err := c.WaitRestore(c.ctx, refused)
	require.NoError(t, err)
	require.Equal(t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase)

	job := c.jobOf(refused, "data")
	assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
	assert.Equal(t, "TargetNotEmpty", job.Status.Reason)
	assert.Nil(t, job.Status.WritingSince)

	for _, word := range []string{"claim " + c.namespace + "/data", contract.AnnotationExistingData, "overwrite", "mirror"} {
		assert.Contains(t, job.Status.Message, word)
	}

	// This also looks that the application has not begun.
	assert.Contains(t, c.gateMessage(), "TargetNotEmpty")

	gated, err := c.GatedPod(c.ctx, c.namespace)
	require.NoError(t, err)

	dir, err = c.VolumeDir(c.ctx, gated, "data")
	require.NoError(t, err)
	c.sameDir(newer, dir)
	c.stop()

	kept := c.namespace + "-kept"
	c.restore(kept, c.namespace, annotated(contract.AnnotationExistingData, "keep")...)
	assert.Equal(t, "DataKept", c.jobOf(kept, "data").Status.Reason)
	c.sameDir(newer, c.volumes(a, c.pod(a))["data"])
	c.stop()

	over := c.namespace + "-over"
	c.restore(over, c.namespace, annotated(contract.AnnotationExistingData, "overwrite")...)

	dir = c.volumes(a, c.pod(a))["data"]
	diff, err := c.Run(c.ctx, "rsync", "-niaHAXc", "--numeric-ids", "--modify-window=-1", old["data"]+"/", dir+"/")
	require.NoError(t, err)
	require.Empty(t, diff, "what was backed up is there")
	require.FileExists(t, filepath.Join(dir, "newer/folder/file"), "and what is newer, too")
	assert.NotNil(t, c.jobOf(over, "data").Status.WritingSince)
	c.stop()

	c.restore(c.namespace+"-mirror", c.namespace, annotated(contract.AnnotationExistingData, "mirror")...)
	c.same(old, a, c.pod(a))
}

func TestARestoreGetsOnWithoutASnapshotIfToldTo(t *testing.T) {
	t.Parallel()

	c := open(t)
	a, pod := c.app(classDelete, lab.Data{Files: 50, Bytes: 1 << 20, Seed: 62})
	old := c.keep(a, pod)
	first, second := c.namespace+"-1", c.namespace+"-2"
	c.backup(first)

	before := c.blobs()
	require.NoError(t, os.WriteFile(filepath.Join(c.volumes(a, pod)["data"], "newer"), []byte("newer"), 0o600))
	c.backup(second)
	// With the indexes of the second backup, its manifests are gone.
	c.removeBlobsBut(before, "[qx]*")

	taken, err := c.WaitBackup(c.ctx, second)
	require.NoError(t, err)

	c.deleteNamespace()
	previous := c.namespace + "-previous"
	c.restore(previous, second, annotated(contract.AnnotationOnMissingSnapshot, "previous")...)
	c.same(old, a, c.pod(a))

	for _, volume := range []string{"data", "scratch"} {
		s := c.jobOf(previous, volume).Status
		assert.Equal(t, "PreviousRestored", s.Reason)
		assert.NotEmpty(t, s.SnapshotID)
		require.NotNil(t, s.SnapshotTimestamp)
		assert.True(t, s.SnapshotTimestamp.Time.Before(taken.Status.StartTimestamp.Time))

		for _, word := range []string{first, s.SnapshotID, s.SnapshotTimestamp.UTC().Format(time.RFC3339)} {
			assert.Contains(t, s.Message, word)
		}
	}

	c.deleteNamespace()
	empty := c.namespace + "-empty"
	c.restore(empty, second, annotated(contract.AnnotationOnMissingSnapshot, "empty")...)

	for volume, dir := range c.volumes(a, c.pod(a)) {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Empty(t, entries)

		s := c.jobOf(empty, volume).Status
		assert.Equal(t, v1alpha1.PhaseCompleted, s.Phase)
		assert.Equal(t, "LeftEmpty", s.Reason)
		assert.Empty(t, s.SnapshotID)
	}
}
