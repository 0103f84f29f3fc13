package enginetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
)

func created(t *testing.T, e engine.Engine) {
	t.Helper()
	require.NoError(t, e.CreateRepository(t.Context(), engine.FormatFast))
}

func requireCode(t *testing.T, want engine.Code, err error) {
	t.Helper()
	require.Error(t, err)

	var coded *engine.Error

	require.ErrorAs(t, err, &coded)
	require.Equal(t, want, coded.Code, "%v", err)
}

// sample makes a small volume; its files are some hours old.
func sample(t *testing.T, content string) string {
	t.Helper()

	dir := t.TempDir()
	old := time.Now().Add(-3 * time.Hour).Truncate(time.Second).Add(123456789)

	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b/empty"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/file"), []byte(content), 0o640))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/b/none"), nil, 0o400))
	require.NoError(t, os.Symlink("a/file", filepath.Join(dir, "link")))

	for _, p := range []string{"a/file", "a/b/none", "a/b/empty", "a/b", "a", "."} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, p), old, old))
	}

	return dir
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()

	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })

	return f
}

func request(t *testing.T, dir, job string) engine.BackupRequest {
	t.Helper()

	return engine.BackupRequest{Root: open(t, dir), Host: "shop", Path: "/persistentvolumeclaim/data", Instance: "pvc/1/1", Job: job}
}

func backedUp(t *testing.T, e engine.Engine, dir, job string) engine.BackupResult {
	t.Helper()

	res, err := e.Backup(t.Context(), request(t, dir, job), nil)
	require.NoError(t, err)

	return res
}

func restored(t *testing.T, e engine.Engine, job, dir string) engine.RestoreResult {
	t.Helper()

	res, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, dir), Job: job, Existing: engine.ExistingOverwrite}, nil)
	require.NoError(t, err)

	return res
}

func requireSame(t *testing.T, want, got string) {
	t.Helper()

	w, err := readFiles(want)
	require.NoError(t, err)
	g, err := readFiles(got)
	require.NoError(t, err)
	require.Equal(t, w.paths(), g.paths())

	for path, f := range w {
		o := g[path]
		assert.True(t, f.modTime.Equal(o.modTime) || path == "link", "%s: mtime is %s, want %s", path, o.modTime, f.modTime)

		f.modTime, o.modTime = time.Time{}, time.Time{}
		assert.Equal(t, f, o, path)
	}
}
