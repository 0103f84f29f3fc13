package app

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
)

// locationsOf makes locations of objects, with caches in a folder of the test.
func locationsOf(t *testing.T, change func(*config.Config), objects ...client.Object) (*locations, string) {
	t.Helper()

	scheme, err := newScheme()
	require.NoError(t, err)

	c := config.Default(config.RoleNode, func(string) string { return "" })
	c.CacheDir = t.TempDir()

	if change != nil {
		change(&c)
	}

	return newLocations(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), c, nil), c.CacheDir
}

func folderLocation(path string) *velerov1.BackupStorageLocation {
	return &velerov1.BackupStorageLocation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "default"},
		Spec:       velerov1.BackupStorageLocationSpec{Provider: "filesystem", Config: map[string]string{"path": path}},
	}
}

func TestAStorageThatIsOpenKeepsItsRepositorysCache(t *testing.T) {
	t.Parallel()

	l, dir := locationsOf(t, func(c *config.Config) { c.MetadataCache, c.ContentCache, c.CacheTotal = 32*cacheKiB, 0, 65*cacheKiB },
		folderLocation(t.TempDir()))
	cacheOf(t, dir, "a", 2)

	open := func(letter string) io.Closer {
		st, err := l.open(t.Context(), v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: repositoryID(letter)}, false)
		require.NoError(t, err)

		c, ok := st.(io.Closer)
		require.True(t, ok, "the runner closes what it can close")

		return c
	}

	a, b := open("a"), open("b")

	assert.DirExists(t, filepath.Join(dir, repositoryID("a")), "it is beyond the total, but in use")
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())

	c := open("c")
	defer c.Close() //nolint:errcheck // it has no part in what is tested

	_, err := os.Stat(filepath.Join(dir, repositoryID("a")))
	assert.ErrorIs(t, err, os.ErrNotExist, "nobody uses it any more, and there is no room")
}
