package kopiaengine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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

func requireCode(t *testing.T, want engine.Code, err error) {
	t.Helper()
	require.Error(t, err)

	var coded *engine.Error

	require.ErrorAs(t, err, &coded)
	require.Equal(t, want, coded.Code, "%v", err)
}

// randomFiles fills a folder with files that can't be compressed, some hours old.
func randomFiles(tb testing.TB, dir string, n, size int) {
	tb.Helper()

	src := rand.NewChaCha8([32]byte{7})
	data := make([]byte, size)
	old := time.Now().Add(-time.Hour)

	for i := range n {
		_, err := src.Read(data)
		require.NoError(tb, err)

		path := filepath.Join(dir, strconv.Itoa(i%100), strconv.Itoa(i))
		require.NoError(tb, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(tb, os.WriteFile(path, data, 0o600))
		require.NoError(tb, os.Chtimes(path, old, old))
	}
}

func TestWhatCannotBeKeptIsCounted(t *testing.T) {
	needRoot(t)

	volume, target := t.TempDir(), t.TempDir()
	counts, err := tree.Unkept(volume)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(volume, "attributed"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink("attributed", filepath.Join(volume, "link to attributed")))

	for _, path := range []string{volume, filepath.Join(volume, "attributed")} {
		require.NoError(t, unix.Setxattr(path, "user.estiba", []byte("x"), 0))
	}

	e := newEngine(t, store(t, t.TempDir()))
	res := backup(t, e, volume, "vb-1")

	got := map[engine.OmissionReason]int64{}
	for _, o := range res.Summary.Omissions {
		got[o.Reason] = o.Count

		assert.Len(t, o.Examples, int(o.Count))
	}

	assert.Equal(t, map[engine.OmissionReason]int64{
		engine.OmittedFIFO:   int64(counts["fifo"]),
		engine.OmittedSocket: int64(counts["socket"]),
		engine.OmittedDevice: int64(counts["device"]),
		engine.OmittedHoles:  int64(counts["holes"]),
		engine.OmittedXattr:  2, // The root and the file, not the link.
	}, got)

	restore(t, e, "vb-1", target)
	requireSame(t, volume, target, tree.Skip(func(p string) bool {
		return p == "unkept/fifo" || p == "unkept/socket" || p == "unkept/null"
	}))
}

func TestAStoreErrorIsNeverAFileError(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 30, 2<<20)

	stalled := engine.Errorf(engine.CodeStoreStalled, "no byte for two minutes")

	for name, test := range map[string]struct {
		arm  func(*testStorage)
		want engine.Code
	}{
		"the code of the storage's memory is the job's": {
			func(s *testStorage) {
				s.onPut = func(_ context.Context, id blob.ID) error {
					if isData(id) {
						return s.stick(stalled)
					}

					return nil
				}
			}, engine.CodeStoreStalled,
		},
		"a plain error that the storage remembers is an outage": {
			func(s *testStorage) {
				s.onPut = func(_ context.Context, id blob.ID) error {
					if isData(id) {
						return s.stick(errors.New("connection refused"))
					}

					return nil
				}
			}, engine.CodeStoreUnavailable,
		},
		"a storage without memory gives its error on": {
			func(s *testStorage) {
				s.onPut = func(_ context.Context, id blob.ID) error {
					if isData(id) {
						return engine.Errorf(engine.CodeCredentialsInvalid, "refused")
					}

					return nil
				}
			}, engine.CodeCredentialsInvalid,
		},
		"an index that can't be written is one too": {
			func(s *testStorage) {
				s.onPut = func(_ context.Context, id blob.ID) error {
					if strings.HasPrefix(string(id), "x") {
						return s.stick(stalled)
					}

					return nil
				}
			}, engine.CodeStoreStalled,
		},
		"a write that was lost is one too": {
			func(s *testStorage) {
				s.verify = func(int32) error { return engine.Errorf(engine.CodeStoreLostWrite, "blob p1 is gone") }
			}, engine.CodeStoreLostWrite,
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := &testStorage{Storage: store(t, t.TempDir())}
			e := newEngine(t, st)
			test.arm(st)

			_, err := e.Backup(t.Context(), request(t, volume, "vb-1"), nil)
			requireCode(t, test.want, err)
			assert.NotContains(t, err.Error(), "could not be read")
		})
	}
}

func TestABackupThatWorkedWasVerified(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 3, 100)

	st := &testStorage{Storage: store(t, t.TempDir())}
	backup(t, newEngine(t, st), volume, "vb-1")
	assert.EqualValues(t, 2, st.verified.Load(), "what the snapshot needs before it is written, and the snapshot")
}

// A worker may die at any moment; its death looks like a failure of whatever comes next.
func TestWhoDiesBeforeLookingForWhatHeWroteLeavesNoSnapshot(t *testing.T) {
	needRoot(t)

	for name, c := range map[string]struct {
		// dies is the look at what was written in which the worker dies, from 1.
		dies int32
		left int
	}{
		"before the snapshot is written":                   {dies: 1, left: 0},
		"after it is written, and its data was looked for": {dies: 2, left: 1},
	} {
		t.Run(name, func(t *testing.T) {
			volume, target := t.TempDir(), t.TempDir()
			randomFiles(t, volume, 20, 1<<16)

			st := &testStorage{Storage: store(t, t.TempDir())}
			st.verify = func(n int32) error {
				if n == c.dies {
					return engine.Errorf(engine.CodeStoreUnavailable, "gone")
				}

				return nil
			}

			_, err := newEngine(t, st).Backup(t.Context(), request(t, volume, "vb-1"), nil)
			requireCode(t, engine.CodeStoreUnavailable, err)

			list, err := elsewhere(t, st).Snapshots(t.Context())
			require.NoError(t, err)
			assert.Len(t, list, c.left)

			res := backup(t, elsewhere(t, st), volume, "vb-1")

			list, err = elsewhere(t, st).Snapshots(t.Context())
			require.NoError(t, err)
			require.Len(t, list, c.left+1)

			assert.Equal(t, res.SnapshotID, restore(t, elsewhere(t, st), "vb-1", target).SnapshotID, "that of the last attempt")
			requireSame(t, volume, target)
		})
	}
}

func TestACancelledBackupLeavesACheckpoint(t *testing.T) {
	needRoot(t)

	volume := t.TempDir()
	randomFiles(t, volume, 40, 1<<20)

	st := &testStorage{Storage: store(t, t.TempDir())}
	e := newEngineAt(t, st, 10*time.Minute)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var once sync.Once

	st.onPut = func(_ context.Context, id blob.ID) error {
		if isData(id) {
			once.Do(cancel)
		}

		return nil
	}

	begun := time.Now()
	_, err := e.Backup(ctx, request(t, volume, "vb-1"), nil)

	requireCode(t, engine.CodeCanceled, err)
	assert.Less(t, time.Since(begun), 20*time.Second)

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list, "a checkpoint is no snapshot")

	_, err = e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-1"}, nil)
	requireCode(t, engine.CodeSnapshotNotFound, err)

	res := backup(t, e, volume, "vb-2")
	assert.True(t, res.Incremental)
	assert.Less(t, res.Summary.ReadBytes, res.Summary.Bytes)

	target := t.TempDir()
	restore(t, e, "vb-2", target)
	requireSame(t, volume, target)

	// The checkpoint went with the backup that made it useless.
	forgotten, err := e.Forget(t.Context(), engine.ForgetRequest{Job: "vb-1"})
	require.NoError(t, err)
	assert.Zero(t, forgotten.Deleted)
}

func TestACancelledCallReturnsThoughTheStoreHangs(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 40, 1<<20)

	st := &testStorage{Storage: store(t, t.TempDir())}
	newEngine(t, st)

	e := kopiaengine.New(kopiaengine.Config{Repository: settings(t, st), CancelGrace: 50 * time.Millisecond})
	require.NoError(t, e.CreateRepository(t.Context(), engine.FormatFast))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	release := make(chan struct{})
	st.onPut = func(_ context.Context, id blob.ID) error {
		if isData(id) {
			cancel()
			<-release
		}

		return nil
	}

	_, err := e.Backup(ctx, request(t, volume, "vb-1"), nil)
	requireCode(t, engine.CodeCanceled, err)
	close(release)
}

func TestAnotherKeyIsRefused(t *testing.T) {
	st := store(t, t.TempDir())
	newEngine(t, st)

	s := settings(t, st)
	s.Password = strings.Repeat("f", 64)
	e := kopiaengine.New(kopiaengine.Config{Repository: s})

	requireCode(t, engine.CodeWrongKey, e.CreateRepository(t.Context(), engine.FormatFast))

	_, err := e.Snapshots(t.Context())
	requireCode(t, engine.CodeWrongKey, err)
}

func TestALostBlobFailsTheRestore(t *testing.T) {
	for _, kind := range []string{"p", "q"} {
		t.Run(kind, func(t *testing.T) {
			volume := t.TempDir()
			randomFiles(t, volume, 10, 1000)

			st := store(t, t.TempDir())
			e := newEngine(t, st)
			backup(t, e, volume, "vb-1")

			lost, err := blob.ListAllBlobs(t.Context(), st, blob.ID(kind))
			require.NoError(t, err)
			require.NotEmpty(t, lost)

			for _, b := range lost {
				require.NoError(t, st.DeleteBlob(t.Context(), b.BlobID))
			}

			fresh := kopiaengine.New(kopiaengine.Config{Repository: settings(t, st)})
			_, err = fresh.Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-1"}, nil)
			requireCode(t, engine.CodeRepositoryDamaged, err)
		})
	}
}

func TestAFileThatChangesWhileItIsReadIsReadAgain(t *testing.T) {
	needRoot(t)

	volume, target := t.TempDir(), t.TempDir()
	randomFiles(t, volume, 1, 40<<20)
	path := filepath.Join(volume, "0", "0")

	st := &testStorage{Storage: store(t, t.TempDir())}
	e := newEngine(t, st)

	var once sync.Once

	st.onPut = func(_ context.Context, id blob.ID) error {
		if isData(id) { // The first pack is written while the rest of the file is read.
			once.Do(func() { assert.NoError(t, os.WriteFile(path, []byte("short now"), 0o600)) })
		}

		return nil
	}

	res := backup(t, e, volume, "vb-1")
	assert.Empty(t, res.Summary.Omissions)

	restore(t, e, "vb-1", target)
	requireSame(t, volume, target)
}

func TestAFileThatNeverStopsChangingIsCounted(t *testing.T) {
	needRoot(t)

	volume := t.TempDir()
	randomFiles(t, volume, 1, 40<<20)
	path := filepath.Join(volume, "0", "0")

	st := &testStorage{Storage: store(t, t.TempDir())}
	e := newEngine(t, st)

	tick := time.Now().Add(-30 * time.Minute)
	salt := byte(0)

	st.onPut = func(_ context.Context, id blob.ID) error {
		if !isData(id) {
			return nil
		}

		// Other content each time, so that each pass has something to write.
		salt++
		tick = tick.Add(time.Minute)

		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}

		for off := int64(0); off < 40<<20; off += 1 << 20 {
			if _, err := f.WriteAt([]byte{salt, salt + 1, salt + 2}, off); err != nil {
				return err
			}
		}

		return errors.Join(f.Close(), os.Chtimes(path, tick, tick))
	}

	r := request(t, volume, "vb-1")
	r.Parallel = 1

	res, err := e.Backup(t.Context(), r, nil)
	require.NoError(t, err)
	require.Len(t, res.Summary.Omissions, 1)
	assert.Equal(t, engine.OmittedChanged, res.Summary.Omissions[0].Reason)
	assert.Equal(t, []string{`"0/0"`}, res.Summary.Omissions[0].Examples)
}
