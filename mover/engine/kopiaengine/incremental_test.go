package kopiaengine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

func TestWhatDidNotChangeIsNotReadAgain(t *testing.T) {
	needRoot(t)

	volume := t.TempDir()
	require.NoError(t, tree.Nasty(volume))

	st := store(t, t.TempDir())
	first := backup(t, newEngineAt(t, st, 10*time.Minute), volume, "vb-1")
	e := elsewhere(t, st)
	second := backup(t, e, volume, "vb-2")

	assert.False(t, first.Incremental)
	assert.Equal(t, first.Summary.Bytes, first.Summary.ReadBytes)
	assert.True(t, second.Incremental)
	assert.Zero(t, second.Summary.ReadBytes)
	assert.Equal(t, first.Summary.Bytes, second.Summary.Bytes)

	target := t.TempDir()
	restore(t, e, "vb-2", target)
	requireSame(t, volume, target)
}

func TestAnotherInstanceIsReadInFullAndStoredOnce(t *testing.T) {
	needRoot(t)

	volume := t.TempDir()
	require.NoError(t, tree.Nasty(volume))

	e := newEngine(t, store(t, t.TempDir()))
	first := backup(t, e, volume, "vb-1")

	other := request(t, volume, "vb-2")
	other.Instance = "pvc/2/2"

	res, err := e.Backup(t.Context(), other, nil)
	require.NoError(t, err)

	assert.False(t, res.Incremental)
	assert.Equal(t, first.Summary.Bytes, res.Summary.ReadBytes)
	assert.Less(t, res.Summary.StoredBytes, first.Summary.StoredBytes/10)
}

func TestAChangeOfTheSameSizeIsFound(t *testing.T) {
	needRoot(t)

	old := time.Now().Add(-time.Hour).Truncate(time.Second).Add(time.Millisecond)
	put := func(path string) error { return os.WriteFile(path, []byte("behind"), 0o600) }

	for name, test := range map[string]struct {
		at    time.Time
		write func(path string) error
	}{
		"with a later time":    {old.Add(time.Nanosecond), put},
		"with an earlier time": {old.Add(-time.Hour), put},
		"with the same time":   {old, put},
		"with the same time, in another file's place": {old, func(path string) error {
			return errors.Join(put(path+".new"), os.Chtimes(path+".new", old, old), os.Rename(path+".new", path))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			volume, target := t.TempDir(), t.TempDir()
			path := filepath.Join(volume, "file")
			require.NoError(t, os.WriteFile(path, []byte("before"), 0o600))
			require.NoError(t, os.Chtimes(path, old, old))

			e := newEngineAt(t, store(t, t.TempDir()), time.Second)
			backup(t, e, volume, "vb-1")

			require.NoError(t, test.write(path))
			require.NoError(t, os.Chtimes(path, test.at, test.at))

			res := backup(t, e, volume, "vb-2")
			assert.True(t, res.Incremental)
			assert.EqualValues(t, 6, res.Summary.ReadBytes)

			restore(t, e, "vb-2", target)
			requireSame(t, volume, target)
		})
	}
}

func TestAFileWrittenJustBeforeItsBackupIsReadAgain(t *testing.T) {
	needRoot(t)

	volume, target := t.TempDir(), t.TempDir()
	path := filepath.Join(volume, "file")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o600))

	now := time.Now().Add(30 * time.Second) // As if it had been written while the backup ran.
	require.NoError(t, os.Chtimes(path, now, now))

	e := newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	require.NoError(t, os.WriteFile(path, []byte("behind"), 0o600))
	require.NoError(t, os.Chtimes(path, now, now))

	backup(t, e, volume, "vb-2")
	restore(t, e, "vb-2", target)
	requireSame(t, volume, target)
}

func TestWhatACheckpointDidNotReachIsComparedWithCareToo(t *testing.T) {
	needRoot(t)

	for name, write := range map[string]func(path, content string) error{
		"a file": func(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) },
		"a link": func(path, content string) error { return os.Symlink(content, path) },
	} {
		t.Run(name, func(t *testing.T) {
			volume, target := t.TempDir(), t.TempDir()
			path := filepath.Join(volume, "zzz", "last")
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))

			st := &testStorage{Storage: store(t, t.TempDir())}
			e := newEngine(t, st)

			written := time.Now().Add(30 * time.Second) // As if it had been written while the first backup ran.
			stamp := []unix.Timespec{unix.NsecToTimespec(written.UnixNano()), unix.NsecToTimespec(written.UnixNano())}

			require.NoError(t, write(path, "before"))
			require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, stamp, unix.AT_SYMLINK_NOFOLLOW))
			backup(t, e, volume, "vb-1")

			require.NoError(t, os.Remove(path))
			require.NoError(t, write(path, "behind"))
			require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, stamp, unix.AT_SYMLINK_NOFOLLOW))
			randomFiles(t, volume, 100, 1<<20)

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			// The clock of the checkpoint is past all that.
			later := settings(t, st)
			later.Now = func() time.Time { return time.Now().Add(10 * time.Minute) }

			st.onPut = func(_ context.Context, id blob.ID) error {
				if isData(id) {
					cancel()
				}

				return nil
			}

			r := request(t, volume, "vb-2")
			r.Parallel = 1

			_, err := kopiaengine.New(kopiaengine.Config{Repository: later}).Backup(ctx, r, nil)
			requireCode(t, engine.CodeCanceled, err)

			st.onPut = nil

			assert.True(t, backup(t, e, volume, "vb-3").Incremental)
			restore(t, e, "vb-3", target)
			requireSame(t, volume, target)
		})
	}
}

func TestSiblingReplicasNeverMix(t *testing.T) {
	needRoot(t)

	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	e := newEngine(t, store(t, t.TempDir()))

	// Everything that an incremental backup compares is the same in both.
	var volumes [2]string

	for i, content := range []string{"replica 0", "replica 1"} {
		volumes[i] = t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(volumes[i], "file"), []byte(content), 0o600))
		require.NoError(t, os.Chtimes(filepath.Join(volumes[i], "file"), old, old))
	}

	for round := range 2 {
		for i, volume := range volumes {
			r := request(t, volume, "vb-"+string(rune('a'+round))+string(rune('0'+i)))
			r.Instance = "pod/" + string(rune('0'+i)) + "/cache"

			_, err := e.Backup(t.Context(), r, nil)
			require.NoError(t, err)

			target := t.TempDir()
			restore(t, e, r.Job, target)
			requireSame(t, volume, target)
		}
	}
}
