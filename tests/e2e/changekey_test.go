//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
	"github.com/estiba-dev/estiba/tests/testkit/stock"
)

// It is among the first tests, because it rotates the key of every repository that there is.
func TestTheMasterKeyIsRotated(t *testing.T) {
	c := open(t)
	first, second := c.namespace+"-1", c.namespace+"-2"
	a, pod := c.app(classDelete, lab.Data{Files: 50, Bytes: 2 << 20, Seed: 95})
	kept := c.keep(a, pod)
	c.backup(first)

	before := c.repositoryOf(c.namespace)
	old := c.estiba("key", "derive", "--repository", before.Status.ID)
	forgotten := c.forgotten(before.Spec.BackupStorageLocation)

	assert.Contains(t, c.estiba("key", "rotate"), "EXPORT IT NOW")
	assert.Equal(t, old, c.estiba("key", "derive", "--repository", before.Status.ID, "--previous"))

	c.finishRotation()
	assert.NotContains(t, c.masterKey().Data, contract.MasterKeySecretPrevious)

	now := c.repositoryOf(c.namespace)
	assert.Equal(t, before.Status.ID, now.Status.ID)
	assert.NotEqual(t, before.Status.KeyFingerprint, now.Status.KeyFingerprint)
	assert.Equal(t, now.Status.KeyFingerprint, c.repositoryOf(forgotten).Status.KeyFingerprint, "one that the cluster had forgotten is taken along")

	_, err := stock.OpenWith(c.ctx, c.Lab, now.Spec.BackupStorageLocation, now.Status.Path, old)
	require.ErrorIs(t, err, repo.ErrInvalidPassword)

	r, err := stock.Open(c.ctx, c.Lab, now.Spec.BackupStorageLocation, now.Status.Path)
	require.NoError(t, err)
	require.NoError(t, r.Close(c.ctx))

	require.NoError(t, os.WriteFile(filepath.Join(c.volumes(a, pod)["data"], "changed"), []byte("new content"), 0o600))
	keptNow := c.keepAt(a, pod, "now")
	c.backup(second)

	for _, job := range c.completed(second, 2) {
		assert.True(t, job.Status.Incremental)
		assert.Less(t, job.Status.Summary.StoredBytes, int64(100<<10))
	}

	for backup, want := range map[string]map[string]string{first: kept, second: keptNow} {
		c.deleteNamespace()
		c.restore(backup, backup)
		c.same(want, a, c.pod(a))
	}
}

// forgotten makes a repository of a namespace that the cluster knows no more.
func (c *cell) forgotten(location string) string {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	namespace := c.namespace + "-f"
	r := jobs.NewRepository(c.Namespace, location, namespace)
	require.NoError(c.t, c.Create(ctx, r))
	require.NoError(c.t, c.Wait(ctx, "the repository to be made", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(r), r)

		return r.Status.Phase == v1alpha1.RepositoryReady, err
	}))
	require.NoError(c.t, c.Delete(ctx, r))

	return namespace
}

// finishRotation finishes as soon as it is let.
func (c *cell) finishRotation() {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	var refused error

	err := c.Wait(ctx, "the previous key to be needed no more", func(ctx context.Context) (bool, error) {
		_, refused = c.Run(ctx, filepath.Join("_output", runtime.GOARCH, "estiba"), "key", "rotate", "--finish")

		return refused == nil, nil
	})
	require.NoError(c.t, err, "%v", refused)
}
