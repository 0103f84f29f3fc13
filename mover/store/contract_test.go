package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

const folder = "plugins/estiba/repositories/ns/id"

// quick are options under which a failing test does not wait long.
func quick() store.Options {
	return store.Options{RetryFor: 10 * time.Second, StallAfter: 5 * time.Second}
}

func openFolder(tb testing.TB, root string, o store.Options) blob.Storage {
	tb.Helper()

	st, err := store.Open(context.Background(), settings.Settings{Kind: settings.Filesystem, Path: root, Prefix: "cluster"}, nil, folder, o)
	require.NoError(tb, err)

	return st
}

func noise(size int) []byte {
	r := rand.NewChaCha8([32]byte{byte(size)})
	b := make([]byte, size)
	_, _ = r.Read(b)

	return b
}

func read(ctx context.Context, st blob.Storage, id blob.ID) ([]byte, error) {
	var out store.Buffer

	err := st.GetBlob(ctx, id, 0, -1, &out)

	return out.Bytes(), err
}

// TestEveryStorageKeepsTheContract runs what kopia relies on over every storage of this package.
func TestEveryStorageKeepsTheContract(t *testing.T) {
	t.Parallel()

	for name, open := range map[string]func(t *testing.T) blob.Storage{
		"memory under all layers": func(*testing.T) blob.Storage { return store.Layer(newMemory(), quick()) },
		"memory under limits": func(*testing.T) blob.Storage {
			o := quick()
			o.Upload, o.Download = store.NewLimiter(1<<30, realClock()), store.NewLimiter(1<<30, realClock())

			return store.Layer(newMemory(), o)
		},
		"a folder":             func(t *testing.T) blob.Storage { t.Helper(); return openFolder(t, t.TempDir(), quick()) },
		"memory over a socket": func(t *testing.T) blob.Storage { t.Helper(); return brokered(t, newMemory(), store.BrokerOptions{}) },
		"a folder over a socket": func(t *testing.T) blob.Storage {
			t.Helper()

			return brokered(t, openFolder(t, t.TempDir(), quick()), store.BrokerOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verifyContract(t, open(t))
		})
	}
}

func verifyContract(t *testing.T, st blob.Storage) {
	t.Helper()

	ctx := context.Background()

	verifyAbsent(ctx, t, st)

	contents := map[blob.ID][]byte{
		"kopia.repository": noise(1000), "p0123": noise(3 << 20), "p0456": noise(1), "q-empty": {}, "_log_x.1": noise(70_000),
	}
	for id, content := range contents {
		var at time.Time

		require.NoError(t, st.PutBlob(ctx, id, store.Memory(content), blob.PutOptions{GetModTime: &at}))
		require.WithinDuration(t, time.Now(), at, time.Minute)
	}

	for id, content := range contents {
		got, err := read(ctx, st, id)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), id)

		m, err := st.GetMetadata(ctx, id)
		require.NoError(t, err)
		require.Equal(t, int64(len(content)), m.Length)
		require.Equal(t, id, m.BlobID)
	}

	verifyRanges(ctx, t, st, "p0123", contents["p0123"])
	verifyListing(ctx, t, st)
	verifyRefusals(ctx, t, st)

	require.NoError(t, st.PutBlob(ctx, "p0456", store.Memory("other"), blob.PutOptions{}))
	got, err := read(ctx, st, "p0456")
	require.NoError(t, err)
	require.Equal(t, "other", string(got))

	require.NoError(t, st.DeleteBlob(ctx, "p0456"))
	require.NoError(t, st.DeleteBlob(ctx, "p0456"))
	_, err = st.GetMetadata(ctx, "p0456")
	require.ErrorIs(t, err, blob.ErrBlobNotFound)

	require.Equal(t, blob.ConnectionInfo{Type: "estiba"}.Type, st.ConnectionInfo().Type)
	require.NotEmpty(t, st.DisplayName())
	require.NoError(t, st.FlushCaches(ctx))
	require.False(t, st.IsReadOnly())

	if _, err := st.GetCapacity(ctx); err != nil {
		require.ErrorIs(t, err, blob.ErrNotAVolume)
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()

	_, err = read(ended, st, "p0123")
	require.Equal(t, engine.CodeCanceled, engine.CodeOf(err))
	require.ErrorIs(t, err, context.Canceled)
}

func verifyAbsent(ctx context.Context, t *testing.T, st blob.Storage) {
	t.Helper()

	_, err := read(ctx, st, "absent")
	require.ErrorIs(t, err, blob.ErrBlobNotFound)

	_, err = st.GetMetadata(ctx, "absent")
	require.ErrorIs(t, err, blob.ErrBlobNotFound)

	require.NoError(t, st.DeleteBlob(ctx, "absent"))

	all, err := blob.ListAllBlobs(ctx, st, "")
	require.NoError(t, err)
	require.Empty(t, all)
}

func verifyRanges(ctx context.Context, t *testing.T, st blob.Storage, id blob.ID, content []byte) {
	t.Helper()

	size := int64(len(content))

	for name, r := range map[string]struct {
		offset, length int64
		fails          bool
	}{
		"the first byte":      {0, 1, false},
		"a part":              {1000, 100_000, false},
		"the last byte":       {size - 1, 1, false},
		"all by its length":   {0, size, false},
		"nothing":             {5, 0, false},
		"beyond the end":      {size - 1, 2, true},
		"far beyond the end":  {size + 10, 5, true},
		"a negative position": {-1, 5, true},
	} {
		var out store.Buffer

		_, _ = out.Write([]byte("what was there before"))

		err := st.GetBlob(ctx, id, r.offset, r.length, &out)
		if r.fails {
			require.ErrorIs(t, err, blob.ErrInvalidRange, name)

			continue
		}

		require.NoError(t, err, name)
		require.True(t, bytes.Equal(content[r.offset:r.offset+r.length], out.Bytes()), name)
	}
}

func verifyListing(ctx context.Context, t *testing.T, st blob.Storage) {
	t.Helper()

	for prefix, want := range map[blob.ID]int{"": 5, "p": 2, "p01": 1, "_log_": 1, "z": 0} {
		all, err := blob.ListAllBlobs(ctx, st, prefix)
		require.NoError(t, err)
		require.Len(t, all, want, "prefix %q", prefix)
	}

	errStop := errors.New("stop")
	require.ErrorIs(t, st.ListBlobs(ctx, "", func(blob.Metadata) error { return errStop }), errStop)
}

func verifyRefusals(ctx context.Context, t *testing.T, st blob.Storage) {
	t.Helper()

	require.ErrorIs(t, st.PutBlob(ctx, "x", store.Memory("x"), blob.PutOptions{DoNotRecreate: true}), blob.ErrUnsupportedPutBlobOption)
	require.ErrorIs(t, st.PutBlob(ctx, "x", store.Memory("x"), blob.PutOptions{RetentionMode: blob.Governance, RetentionPeriod: time.Hour}), blob.ErrUnsupportedPutBlobOption)
	require.ErrorIs(t, st.ExtendBlobRetention(ctx, "x", blob.ExtendOptions{}), blob.ErrUnsupportedObjectLock)

	for _, id := range []blob.ID{"", "..", "../escape", "a/b", "/etc/passwd", ".hidden", "a..b", "a b", "a%2fb", "a\x00b", "ä"} {
		_, err := read(ctx, st, id)
		require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), "get %q: %v", id, err)

		err = st.PutBlob(ctx, id, store.Memory("x"), blob.PutOptions{})
		require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), "put %q: %v", id, err)

		err = st.DeleteBlob(ctx, id)
		require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), "delete %q: %v", id, err)
	}

	require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(st.ListBlobs(ctx, "../", nil)))
}

func TestNothingIsWrittenOutsideTheFolder(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	st := openFolder(t, root, quick())
	require.NoError(t, st.PutBlob(context.Background(), "p01", store.Memory("x"), blob.PutOptions{}))

	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			require.Contains(t, path, filepath.Join(root, "cluster", folder))
		}

		return err
	}))

	for _, bad := range []string{"", "/", "../other", "a//b", "a/../../b"} {
		_, err := store.Open(context.Background(), settings.Settings{Kind: settings.Filesystem, Path: root}, nil, bad, quick())
		require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), bad)
	}
}

func TestAStoreThatIsReadOnlyIsNotWritten(t *testing.T) {
	t.Parallel()

	ctx := context.Background()
	inner := newMemory()
	require.NoError(t, inner.PutBlob(ctx, "p01", store.Memory("x"), blob.PutOptions{}))

	direct := quick()
	direct.ReadOnly = true

	for name, st := range map[string]blob.Storage{
		"by its options": store.Layer(inner, direct),
		"by the broker":  brokered(t, inner, store.BrokerOptions{ReadOnly: true}),
		"by the broker alone, the worker asks on": brokered(t, store.Layer(inner, direct), store.BrokerOptions{}),
	} {
		got, err := read(ctx, st, "p01")
		require.NoError(t, err, name)
		require.Equal(t, "x", string(got))

		require.Equal(t, engine.CodeStoreReadOnly, engine.CodeOf(st.PutBlob(ctx, "p02", store.Memory("y"), blob.PutOptions{})), name)
		require.Equal(t, engine.CodeStoreReadOnly, engine.CodeOf(st.DeleteBlob(ctx, "p01")), name)
		require.Len(t, inner.blobs, 1)

		if c, ok := st.(*store.Client); ok {
			require.NoError(t, c.Err(), "a refused write is not the store's failure")
		}
	}

	missing := settings.Settings{Kind: settings.Filesystem, Path: t.TempDir(), ReadOnly: true}
	_, err := store.Open(ctx, missing, nil, folder, quick())
	require.Equal(t, engine.CodeRepositoryNotFound, engine.CodeOf(err))

	missing.Path += "/not-mounted"
	_, err = store.Open(ctx, missing, nil, folder, quick())
	require.Equal(t, engine.CodeStoreUnavailable, engine.CodeOf(err))
}

// BenchmarkBroker moves blobs of a pack's size directly and through the broker, and prints the ratio.
func BenchmarkBroker(b *testing.B) {
	const size = 20 << 20

	content := store.Memory(noise(size))
	ctx := context.Background()

	for _, verb := range []string{"put", "get"} {
		rates := map[string]float64{}

		for _, way := range []string{"direct", "broker"} {
			b.Run(verb+"/"+way, func(b *testing.B) {
				inner := newMemory()
				require.NoError(b, inner.PutBlob(ctx, "p0", content, blob.PutOptions{}))

				st := store.Layer(inner, quick())
				if way == "broker" {
					st = brokered(b, st, store.BrokerOptions{})
				}

				var out store.Buffer

				b.SetBytes(size)
				b.ReportAllocs()

				for b.Loop() {
					if verb == "put" {
						require.NoError(b, st.PutBlob(ctx, "p1", content, blob.PutOptions{}))
					} else {
						require.NoError(b, st.GetBlob(ctx, "p0", 0, -1, &out))
					}
				}

				rates[way] = float64(size) * float64(b.N) / b.Elapsed().Seconds() / 1e9
			})
		}

		fmt.Printf("%s of %d MiB: direct %.2f GB/s, broker %.2f GB/s, ratio %.2f\n",
			verb, size>>20, rates["direct"], rates["broker"], rates["broker"]/rates["direct"])
	}
}
