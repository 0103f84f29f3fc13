package kopiaengine_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A pack of which something was found damaged is named by the mark that says so. When its index is
// damaged, too, all else in it is made known again nevertheless.
func TestAPackThatIsNamedByMarksAloneIsKnownAgain(t *testing.T) {
	needRoot(t)

	const size = 100_000

	volume, dir, target := t.TempDir(), t.TempDir(), t.TempDir()
	s := settings(t, store(t, dir))
	s.Now = hours
	e := newEngineWith(t, s)

	randomFiles(t, volume, 2, size)

	r := request(t, volume, "vb-1")
	r.Parallel = 1

	_, err := e.Backup(t.Context(), r, nil)
	require.NoError(t, err)

	first := blobsIn(t, dir)
	ids := make([]string, 0, len(first))

	for id := range first {
		ids = append(ids, id)
	}

	// The next snapshot needs one of the two files in the pack, and the other one is altered.
	require.NoError(t, os.Remove(filepath.Join(volume, "0", "0")))
	backup(t, e, volume, "vb-2")

	wanted := t.TempDir()
	require.NoError(t, os.CopyFS(wanted, os.DirFS(filepath.Join(volume, "1"))))
	damageBlobs(t, dir, "p", ids, func(t *testing.T, path string) {
		t.Helper()

		b, err := os.ReadFile(path)
		require.NoError(t, err)

		b[size/2] ^= 1
		require.NoError(t, os.WriteFile(path, b, 0o600))
	})
	require.Equal(t, 1, backup(t, e, volume, "vb-3").LostPacks)

	// The volume has none of them any more.
	require.NoError(t, os.RemoveAll(filepath.Join(volume, "1")))
	damageBlobs(t, dir, "xn", ids, faults["flipped"])
	require.Positive(t, backup(t, ahead(t, store(t, dir)), volume, "vb-4").LostPacks)

	restore(t, ahead(t, store(t, dir)), "vb-2", target)

	want, err := os.ReadFile(filepath.Join(wanted, "1"))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(target, "1", "1"))
	require.NoError(t, err)
	require.Equal(t, want, got)
}
