package kopiaengine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

// A backup goes on without those parts of the list of snapshots that the store has lost or altered. Whoever
// brings them back has the snapshots again.
func TestSnapshotsAreListedAgainWhenTheirBlobsAreBack(t *testing.T) {
	needRoot(t)

	h := makeHistory(t)

	for fault := range faults {
		t.Run(fault, func(t *testing.T) {
			dir, e := h.on(t, h.store, false)
			ids := append(append([]string{}, h.first...), h.second...)

			for _, kind := range []string{"p", "q"} {
				damageBlobs(t, dir, kind, ids, faults[fault])
			}

			// The volume holds nothing any more that could be uploaded again.
			_, err := e.Backup(t.Context(), request(t, t.TempDir(), "vb-3"), nil)
			require.NoError(t, err)
			require.Equal(t, string(engine.CodeSnapshotNotFound), restoreOrSay(t, dir, "vb-2", h.volume))

			backup(t, ahead(t, store(t, dir)), h.other, "vb-4")
			require.Equal(t, string(engine.CodeSnapshotNotFound), restoreOrSay(t, dir, "vb-2", h.volume), "still gone")

			bringBack(t, h.store, dir)
			require.Zero(t, backup(t, e, h.other, "vb-5").LostPacks)
			requireRestored(t, dir, "vb-2", h.volume)
			requireRestored(t, dir, "vb-5", h.other)

			require.Zero(t, backup(t, ahead(t, store(t, dir)), h.volume, "vb-6").LostPacks)
			requireRestored(t, dir, "vb-6", h.volume)
		})
	}
}

// bringBack puts blobs into a store as they are in another one.
func bringBack(t *testing.T, from, dir string) {
	t.Helper()

	for _, path := range blobsIn(t, from) {
		rel, err := filepath.Rel(from, path)
		require.NoError(t, err)

		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, rel)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, rel), b, 0o600))
	}
}

// late acknowledges the n-th pack of folders and manifests, and writes it somewhere else.
type late struct {
	blob.Storage

	n     int
	kept  bool
	other blob.Storage
}

func (s *late) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if strings.HasPrefix(string(id), "q") {
		if s.n--; s.n == 0 {
			s.kept = true

			return s.other.PutBlob(ctx, id, data, o)
		}
	}

	return s.Storage.PutBlob(ctx, id, data, o)
}

// The pack that a failed backup has not found in the store comes after all. What is listed with it is whole:
// the snapshot was looked through before there was a manifest of it.
func TestASnapshotThatComesLateIsWhole(t *testing.T) {
	needRoot(t)

	volume, other := t.TempDir(), t.TempDir()
	randomFiles(t, volume, 3, 1000)
	randomFiles(t, other, 2, 1000)

	for n := 1; ; n++ {
		dir, elsewhere := t.TempDir(), t.TempDir()
		newEngine(t, store(t, dir))

		st := &late{Storage: store(t, dir), n: n, other: store(t, elsewhere)}

		_, err := ahead(t, st).Backup(t.Context(), request(t, volume, "vb-1"), nil)
		if !st.kept {
			require.NoError(t, err)
			require.Greater(t, n, 2, "a backup writes folders, and its manifest")

			return
		}

		requireCode(t, engine.CodeStoreLostWrite, err)

		for _, job := range []string{"vb-2", "vb-3"} {
			_, err = ahead(t, store(t, dir)).Backup(t.Context(), otherRequest(t, &history{other: other}, job), nil)
			require.NoError(t, err)

			bringBack(t, elsewhere, dir)
		}

		list, err := ahead(t, store(t, dir)).Snapshots(t.Context())
		require.NoError(t, err)

		for _, s := range list {
			want := other
			if s.Tags[contract.TagJob] == "vb-1" {
				want = volume
			}

			requireRestored(t, dir, s.Tags[contract.TagJob], want)
		}
	}
}
