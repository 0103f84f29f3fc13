package kopiaengine_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
)

// losing makes a storage acknowledge and forget the first write after begun is
// called of a blob with the prefix.
func losing(st *testStorage, prefix string) (lost func() blob.ID) {
	var (
		mu   sync.Mutex
		gone blob.ID
	)

	st.onPut = func(_ context.Context, id blob.ID) error {
		mu.Lock()
		defer mu.Unlock()

		if gone == "" && strings.HasPrefix(string(id), prefix) {
			gone = id

			return errLoseWrite
		}

		return nil
	}

	return func() blob.ID {
		mu.Lock()
		defer mu.Unlock()

		return gone
	}
}

// elsewhere is an engine on the same storage that has cached nothing.
func elsewhere(t *testing.T, st blob.Storage) *kopiaengine.Engine {
	t.Helper()

	return kopiaengine.New(kopiaengine.Config{Repository: settings(t, st)})
}

func TestALostWriteFailsTheBackupAndNotTheNextOne(t *testing.T) {
	needRoot(t)

	for name, prefix := range map[string]string{"a pack of files": "p", "a pack of folders and manifests": "q"} {
		t.Run(name, func(t *testing.T) {
			volume, target := t.TempDir(), t.TempDir()
			randomFiles(t, volume, 60, 1<<20)

			st := &testStorage{Storage: store(t, t.TempDir())}
			e := newEngine(t, st)
			lost := losing(st, prefix)

			_, err := e.Backup(t.Context(), request(t, volume, "vb-1"), nil)
			requireCode(t, engine.CodeStoreLostWrite, err)
			require.NotEmpty(t, lost())

			list, err := elsewhere(t, st).Snapshots(t.Context())
			require.NoError(t, err)
			assert.Empty(t, list, "a snapshot that lacks something is none")

			res := backup(t, elsewhere(t, st), volume, "vb-1")
			assert.False(t, res.Incremental)

			restore(t, elsewhere(t, st), "vb-1", target)
			requireSame(t, volume, target)

			assert.True(t, backup(t, elsewhere(t, st), volume, "vb-2").Incremental, "what is whole is built upon")
		})
	}
}

func TestALostIndexFailsTheBackupAndNotTheNextOne(t *testing.T) {
	needRoot(t)

	for name, test := range map[string]struct{ interrupted bool }{
		"of a backup that ends":           {false},
		"of one that leaves a checkpoint": {true},
	} {
		t.Run(name, func(t *testing.T) {
			volume, target := t.TempDir(), t.TempDir()
			randomFiles(t, volume, 100, 1<<20)

			st := &testStorage{Storage: store(t, t.TempDir())}
			newEngine(t, st)

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			// The first index of files, of a checkpoint, is lost; manifests are in later ones too. One of
			// a checkpoint that came before any file is needed by nobody.
			lost := losing(st, "xn")
			lose, saved := st.onPut, 0

			var files atomic.Bool

			st.onPut = func(ctx context.Context, id blob.ID) error {
				if strings.HasPrefix(string(id), "p") {
					files.Store(true)
				}

				if !files.Load() {
					return nil
				}

				err := lose(ctx, id)
				if err == nil && strings.HasPrefix(string(id), "xn") {
					if saved++; test.interrupted && saved == 1 {
						cancel()
					}
				}

				return err
			}

			e := kopiaengine.New(kopiaengine.Config{Repository: settings(t, st), CheckpointInterval: 20 * time.Millisecond})
			r := request(t, volume, "vb-1")
			r.Parallel = 1

			_, err := e.Backup(ctx, r, nil)
			require.NotEmpty(t, lost())

			if test.interrupted {
				requireCode(t, engine.CodeCanceled, err)
			} else {
				requireCode(t, engine.CodeStoreLostWrite, err)
			}

			st.onPut = nil

			res := backup(t, elsewhere(t, st), volume, "vb-1")
			assert.False(t, res.Incremental)
			restore(t, elsewhere(t, st), "vb-1", target)
			requireSame(t, volume, target)
		})
	}
}

func TestAPackLostBetweenBackupsIsUploadedAgain(t *testing.T) {
	needRoot(t)

	for name, test := range map[string]struct {
		prefix   string
		truncate bool
	}{
		"a pack of files is gone":                    {"p", false},
		"a pack of files is cut off":                 {"p", true},
		"the packs of folders and manifests":         {"q", false},
		"the packs of folders and manifests are cut": {"q", true},
	} {
		t.Run(name, func(t *testing.T) {
			volume, dir := t.TempDir(), t.TempDir()
			randomFiles(t, volume, 60, 1<<20)

			st := store(t, dir)
			e := newEngine(t, st)
			first := backup(t, e, volume, "vb-1")

			if test.truncate {
				truncateBlobs(t, dir, test.prefix)
			} else {
				deleteBlobs(t, st, test.prefix)
			}

			second := backup(t, elsewhere(t, st), volume, "vb-2")
			assert.False(t, second.Incremental)
			assert.Positive(t, second.LostPacks)
			assert.Equal(t, first.Summary.Bytes, second.Summary.ReadBytes)

			target := t.TempDir()
			restore(t, elsewhere(t, st), "vb-2", target)
			requireSame(t, volume, target)

			third := backup(t, elsewhere(t, st), volume, "vb-3")
			assert.True(t, third.Incremental)
			assert.Zero(t, third.LostPacks)
		})
	}
}

func TestAnotherVolumesLostPackIsNotBuiltUpon(t *testing.T) {
	needRoot(t)

	volume, other, target := t.TempDir(), t.TempDir(), t.TempDir()
	randomFiles(t, volume, 20, 1<<20)
	require.NoError(t, os.WriteFile(filepath.Join(other, "file"), []byte("other"), 0o600))

	st := store(t, t.TempDir())
	backup(t, newEngine(t, st), volume, "vb-1")
	deleteBlobs(t, st, "p")

	// The first one to come by finds the loss, and has none of the data.
	r := request(t, other, "vb-other")
	r.Instance = "pvc/other/1"
	res, err := elsewhere(t, st).Backup(t.Context(), r, nil)
	require.NoError(t, err)
	assert.Positive(t, res.LostPacks)

	second := backup(t, elsewhere(t, st), volume, "vb-2")
	assert.False(t, second.Incremental)

	restore(t, elsewhere(t, st), "vb-2", target)
	requireSame(t, volume, target)
}

func TestAPackLostDuringABackupThatCountedOnItFailsIt(t *testing.T) {
	needRoot(t)

	volume, target := t.TempDir(), t.TempDir()
	randomFiles(t, volume, 60, 1<<20)

	old := time.Now().Add(-30 * time.Minute)

	st := &testStorage{Storage: store(t, t.TempDir())}
	e := newEngine(t, st)
	backup(t, e, volume, "vb-1")
	require.NoError(t, os.WriteFile(filepath.Join(volume, "new"), []byte("new"), 0o600))
	require.NoError(t, os.Chtimes(filepath.Join(volume, "new"), old, old))

	var once sync.Once

	// A write of another session in between, that is lost: the index names its pack
	// only after this backup has begun.
	st.onPut = func(_ context.Context, id blob.ID) error {
		once.Do(func() {
			r := request(t, volume, "vb-between")
			r.Instance = "pvc/2/2"
			inner := &testStorage{Storage: st.Storage}
			_ = losing(inner, "p")
			_, err := elsewhere(t, inner).Backup(t.Context(), r, nil)
			assert.Equal(t, engine.CodeStoreLostWrite, engine.CodeOf(err))
		})

		return nil
	}

	// Either it came by the lost content and says so, or it has its own.
	if _, err := e.Backup(t.Context(), request(t, volume, "vb-2"), nil); err != nil {
		requireCode(t, engine.CodeStoreLostWrite, err)
		backup(t, elsewhere(t, st), volume, "vb-2")
	}

	restore(t, elsewhere(t, st), "vb-2", target)
	requireSame(t, volume, target)
}

func TestLookingForLostPacksCostsOneListing(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 60, 1<<20)

	st := &testStorage{Storage: store(t, t.TempDir())}
	e := newEngine(t, st)
	backup(t, e, volume, "vb-1")

	for range 2 {
		before := st.lists.Load()
		backup(t, e, volume, "vb-2")
		assert.EqualValues(t, 2, st.lists.Load()-before, "one of p and one of q")
	}
}

func deleteBlobs(t *testing.T, st blob.Storage, prefix string) {
	t.Helper()

	all, err := blob.ListAllBlobs(t.Context(), st, blob.ID(prefix))
	require.NoError(t, err)
	require.NotEmpty(t, all)

	for _, b := range all {
		require.NoError(t, st.DeleteBlob(t.Context(), b.BlobID))
	}
}

// truncateBlobs cuts the blobs of a storage in a folder off after a few bytes. The
// storage spreads them over folders named by their first letters.
func truncateBlobs(t *testing.T, dir, prefix string) {
	t.Helper()

	n := 0

	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(dir, path)
		if err := errors.Join(err, relErr); err != nil || d.IsDir() || !strings.HasPrefix(rel, prefix) {
			return err
		}

		n++

		return os.Truncate(path, 40)
	}))
	require.Positive(t, n)
}
