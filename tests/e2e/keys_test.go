//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/tests/testkit/lab"
	"github.com/estiba-dev/estiba/tests/testkit/stock"
)

// The password that `estiba key derive` tells, from the cluster and from an
// export, opens a repository with kopia's own code.
func TestADerivedPasswordOpensTheRepositoryInTheStockKopia(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.app(classDelete, lab.Data{Files: 5, Bytes: 1 << 10, Seed: 6})
	c.backup(c.namespace)

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, repositories, 1)

	r := repositories[0]
	password := c.estiba("key", "derive", "--repository", r.Status.ID)

	exported := filepath.Join(t.TempDir(), "key.yaml")
	c.estiba("key", "export", "-o", exported)
	assert.Equal(t, password, c.estiba("key", "derive", "--repository", r.Status.ID, "--key-file", exported, "--kubeconfig", os.DevNull))

	opened, err := stock.OpenWith(c.ctx, c.Lab, r.Spec.BackupStorageLocation, r.Status.Path, password)
	require.NoError(t, err)
	found, err := opened.Snapshots(c.ctx)
	require.NoError(t, err)
	require.NoError(t, opened.Close(c.ctx))
	assert.NotEmpty(t, found)
}

// estiba runs the command of that name, which `make images` has built, and returns what it prints.
func (c *cell) estiba(args ...string) string {
	c.t.Helper()

	out, err := c.Run(c.ctx, filepath.Join("_output", runtime.GOARCH, "estiba"), args...)
	require.NoError(c.t, err)

	return strings.TrimSpace(out)
}
