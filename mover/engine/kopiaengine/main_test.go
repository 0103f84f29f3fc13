package kopiaengine_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

const password = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func needRoot(t testing.TB) {
	t.Helper()

	if os.Geteuid() != 0 {
		t.Skip("owners can be set by root only")
	}
}

// store is a repository's storage in a folder.
func store(t testing.TB, dir string) blob.Storage {
	t.Helper()

	st, err := filesystem.New(t.Context(), &filesystem.Options{Path: dir}, true)
	require.NoError(t, err)

	return st
}

func settings(t testing.TB, st blob.Storage) repository.Settings {
	t.Helper()

	return repository.Settings{Storage: st, Password: password, CacheDir: filepath.Join(t.TempDir(), "cache")}
}

// newEngine makes an engine with a repository on a storage.
func newEngine(t testing.TB, st blob.Storage) *kopiaengine.Engine {
	t.Helper()

	return newEngineWith(t, settings(t, st))
}

func newEngineWith(t testing.TB, s repository.Settings) *kopiaengine.Engine {
	t.Helper()

	e := kopiaengine.New(kopiaengine.Config{Repository: s, ProgressInterval: 10 * time.Millisecond})
	require.NoError(t, e.CreateRepository(t.Context(), engine.FormatFast))

	return e
}

func open(t testing.TB, dir string) *os.File {
	t.Helper()

	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })

	return f
}

func request(t testing.TB, dir, job string) engine.BackupRequest {
	t.Helper()

	return engine.BackupRequest{Root: open(t, dir), Host: "shop", Path: "/persistentvolumeclaim/data", Instance: "pvc/1/1", Job: job}
}

func backup(t testing.TB, e engine.Engine, dir, job string) engine.BackupResult {
	t.Helper()

	res, err := e.Backup(t.Context(), request(t, dir, job), nil)
	require.NoError(t, err)

	return res
}

func restore(t testing.TB, e engine.Engine, job, dir string) engine.RestoreResult {
	t.Helper()

	res, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, dir), Job: job}, nil)
	require.NoError(t, err)

	return res
}

func requireSame(t testing.TB, want, got string, options ...tree.Option) {
	t.Helper()

	diff, err := tree.Compare(want, got, options...)
	require.NoError(t, err)
	require.Empty(t, diff)
}
