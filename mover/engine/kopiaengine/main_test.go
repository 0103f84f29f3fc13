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
	"github.com/estiba-dev/estiba/tests/testkit/prepared"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

const password = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func needRoot(tb testing.TB) {
	tb.Helper()

	if os.Geteuid() != 0 {
		tb.Skip("owners can be set by root only")
	}
}

// store is a repository's storage in a folder.
func store(tb testing.TB, dir string) blob.Storage {
	tb.Helper()

	st, err := filesystem.New(tb.Context(), &filesystem.Options{Path: dir}, true)
	require.NoError(tb, err)

	return st
}

func settings(tb testing.TB, st blob.Storage) repository.Settings {
	tb.Helper()

	return repository.Settings{Storage: st, Password: password, Seed: password, CacheDir: filepath.Join(tb.TempDir(), "cache")}
}

// newEngine makes an engine with a repository on a storage.
func newEngine(tb testing.TB, st blob.Storage) *kopiaengine.Engine {
	tb.Helper()

	return newEngineWith(tb, settings(tb, st))
}

func newEngineWith(tb testing.TB, s repository.Settings) *kopiaengine.Engine {
	tb.Helper()

	require.NoError(tb, prepared.Repository(tb.Context(), s.Storage, s.Password))

	e := kopiaengine.New(kopiaengine.Config{Repository: s, ProgressInterval: 10 * time.Millisecond})
	require.NoError(tb, e.CreateRepository(tb.Context(), engine.FormatFast))

	return e
}

// newEngineAt is newEngine with a clock that is ahead: to its snapshots, what is in the volume has been so for as long.
func newEngineAt(tb testing.TB, st blob.Storage, ahead time.Duration) *kopiaengine.Engine {
	tb.Helper()

	s := settings(tb, st)
	s.Now = func() time.Time { return time.Now().Add(ahead) }

	return newEngineWith(tb, s)
}

func open(tb testing.TB, dir string) *os.File {
	tb.Helper()

	f, err := os.Open(dir)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, f.Close()) })

	return f
}

func request(tb testing.TB, dir, job string) engine.BackupRequest {
	tb.Helper()

	return engine.BackupRequest{Root: open(tb, dir), Host: "shop", Path: "/persistentvolumeclaim/data", Instance: "pvc/1/1", Job: job}
}

func backup(tb testing.TB, e engine.Engine, dir, job string) engine.BackupResult {
	tb.Helper()

	res, err := e.Backup(tb.Context(), request(tb, dir, job), nil)
	require.NoError(tb, err)

	return res
}

func restore(tb testing.TB, e engine.Engine, job, dir string) engine.RestoreResult {
	tb.Helper()

	res, err := e.Restore(tb.Context(), engine.RestoreRequest{Root: open(tb, dir), Job: job, Existing: engine.ExistingOverwrite}, nil)
	require.NoError(tb, err)

	return res
}

func requireSame(tb testing.TB, want, got string, options ...tree.Option) {
	tb.Helper()

	diff, err := tree.Compare(want, got, options...)
	require.NoError(tb, err)
	require.Empty(tb, diff)
}
