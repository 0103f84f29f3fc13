package kopiaengine_test

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"

	kfs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/policy"
	"github.com/kopia/kopia/snapshot/snapshotfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

func TestStockKopiaReadsEveryFile(t *testing.T) {
	needRoot(t)

	volume := t.TempDir()
	require.NoError(t, tree.Nasty(volume))

	st := store(t, t.TempDir())
	res := backup(t, newEngine(t, st), volume, "vb-1")

	rep, err := repository.Open(t.Context(), settings(t, st))
	require.NoError(t, err)

	defer func() { require.NoError(t, rep.Close(context.Background())) }() // The test's context is done by then.

	m, err := snapshot.LoadSnapshot(t.Context(), rep, manifest.ID(res.SnapshotID))
	require.NoError(t, err)

	root, err := snapshotfs.SnapshotRoot(rep, m)
	require.NoError(t, err)

	files := int64(0)
	compareWithStock(t, volume, root, &files)
	assert.Equal(t, res.Summary.Files, files)
}

func compareWithStock(t *testing.T, path string, e kfs.Entry, files *int64) {
	t.Helper()

	switch e := e.(type) {
	case kfs.Directory:
		require.NoError(t, kfs.IterateEntries(t.Context(), e, func(_ context.Context, c kfs.Entry) error {
			compareWithStock(t, filepath.Join(path, contract.DecodeName(c.Name())), c, files)

			return nil
		}))
	case kfs.Symlink:
		got, err := e.Readlink(t.Context())
		require.NoError(t, err)

		want, err := os.Readlink(path)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	case kfs.File:
		*files++

		r, err := e.Open(t.Context())
		require.NoError(t, err)

		defer func() { require.NoError(t, r.Close()) }()

		want, err := os.ReadFile(path)
		require.NoError(t, err)

		h := sha256.New()
		_, err = io.Copy(h, r)
		require.NoError(t, err)
		assert.Equal(t, sha256.Sum256(want), [sha256.Size]byte(h.Sum(nil)), path)
	default:
		t.Errorf("%s is a %T", path, e)
	}
}

func TestKopiasRetentionDeletesNothingOfOurs(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 1, 10)

	st := store(t, t.TempDir())
	e := newEngine(t, st)

	const snapshots = 11 // More than the ten that kopia keeps where nobody says otherwise.
	for range snapshots {
		backup(t, e, volume, "vb-1")
	}

	rep, err := repository.Open(t.Context(), settings(t, st))
	require.NoError(t, err)

	defer func() { require.NoError(t, rep.Close(context.Background())) }() // The test's context is done by then.

	require.NoError(t, repo.WriteSession(t.Context(), rep, repo.WriteSessionOptions{},
		func(ctx context.Context, w repo.RepositoryWriter) error {
			src := snapshot.SourceInfo{Host: "shop", UserName: contract.SnapshotUser, Path: "/persistentvolumeclaim/data"}
			deleted, err := policy.ApplyRetentionPolicy(ctx, w, src, true)
			assert.Empty(t, deleted)

			return err
		}))

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, snapshots)
}

func TestTheCacheHoldsNoSecret(t *testing.T) {
	volume := t.TempDir()
	canary := "the canary that must not be seen"
	require.NoError(t, os.WriteFile(filepath.Join(volume, "name-"+"canary"), []byte(canary), 0o600))

	s := settings(t, store(t, t.TempDir()))
	e := newEngineWith(t, s)
	backup(t, e, volume, "vb-1")
	backup(t, e, volume, "vb-2")
	restore(t, e, "vb-2", t.TempDir())

	seen := 0

	require.NoError(t, filepath.WalkDir(s.CacheDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		seen++

		b, err := os.ReadFile(path)
		assert.NotContains(t, string(b), canary)
		assert.NotContains(t, string(b), "name-canary")
		assert.NotContains(t, string(b), password)

		return err
	}))
	assert.Positive(t, seen)
}
