package kopiaengine_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// contentOf returns the pack of the first content of an entry of a snapshot's root, and the offset of a byte of it.
func contentOf(t *testing.T, s repository.Settings, id, name string) (blob.ID, int64) {
	t.Helper()

	rep, err := repository.Open(t.Context(), s)
	require.NoError(t, err)

	defer rep.Close(t.Context())

	m, err := snapshot.LoadSnapshot(t.Context(), rep, manifest.ID(id))
	require.NoError(t, err)

	r, err := rep.OpenObject(t.Context(), m.RootEntry.ObjectID)
	require.NoError(t, err)

	var root struct {
		Entries []*snapshot.DirEntry `json:"entries"`
	}

	require.NoError(t, json.NewDecoder(r).Decode(&root))

	for _, e := range root.Entries {
		if e.Name == name {
			ids, err := rep.VerifyObject(t.Context(), e.ObjectID)
			require.NoError(t, err)

			i, err := rep.ContentInfo(t.Context(), ids[0])
			require.NoError(t, err)

			return i.PackBlobID, int64(i.PackOffset) + int64(i.PackedLength)/2
		}
	}

	require.Fail(t, "there is no "+name)

	return "", 0
}

func TestOneDamagedEntryIsLeftOutOfARestoreThatIsToldTo(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 20, 100_000)
	randomFiles(t, filepath.Join(volume, "folder"), 3, 1000)
	randomFiles(t, filepath.Join(volume, "other"), 3, 2000)

	big := make([]byte, 40<<20)
	_, err := rand.NewChaCha8([32]byte{9}).Read(big)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(volume, "big"), big, 0o600))

	st := &noisy{Storage: store(t, t.TempDir())}
	s := settings(t, st)
	e := newEngineWith(t, s)
	id := backup(t, e, volume, "vb-1").SnapshotID

	for _, name := range []string{"folder", "big", "other"} {
		t.Run(name, func(t *testing.T) {
			pack, at := contentOf(t, s, id, name)
			st.rotten = map[blob.ID]int64{pack: at}

			t.Cleanup(func() { st.rotten = nil })

			_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-1"}, nil)
			requireCode(t, engine.CodeRepositoryDamaged, err)
			require.ErrorContains(t, err, `"`+name+`"`)
			require.Equal(t, 1, strings.Count(err.Error(), contract.AnnotationOnFileError+"=skip"), err)

			target := t.TempDir()
			res, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1", OnFileError: engine.FileErrorSkip}, nil)
			require.NoError(t, err)
			assert.EqualValues(t, 1, res.LeftOut)
			assert.Contains(t, res.Summary.Omissions, engine.Omission{Reason: engine.OmittedDamaged, Count: 1, Examples: []string{`"` + name + `"`}})
			assert.NoFileExists(t, filepath.Join(target, "big.part"))

			if name == "big" {
				assert.NoFileExists(t, filepath.Join(target, name))
			}

			requireSame(t, volume, target, tree.Skip(func(p string) bool { return p == "." || p == name || strings.HasPrefix(p, name+"/") }))
		})
	}
}

func TestARestoreThatCanRestoreNothingFails(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 1, 100_000)

	st := &noisy{Storage: store(t, t.TempDir())}
	e := newEngine(t, st)
	backup(t, e, volume, "vb-1")

	st.flips = func(_ int64, id blob.ID) bool { return id[0] == 'p' }
	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-1", OnFileError: engine.FileErrorSkip}, nil)
	requireCode(t, engine.CodeRepositoryDamaged, err)
	require.ErrorContains(t, err, "no file could be restored")
}

func TestAnImmutableFileIsLeftOutOfARestoreThatIsToldTo(t *testing.T) {
	volume, target := t.TempDir(), loopMount(t, "ext4", 64)
	randomFiles(t, volume, 50, 1000)
	require.NoError(t, os.WriteFile(filepath.Join(volume, "config"), []byte("old"), 0o600))

	e := newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	for _, name := range []string{"config", "extra"} {
		stuck := filepath.Join(target, name)
		require.NoError(t, os.WriteFile(stuck, []byte("immutable"), 0o600))
		require.NoError(t, exec.CommandContext(t.Context(), "chattr", "+i", stuck).Run())
		t.Cleanup(func() { _ = exec.Command("chattr", "-i", stuck).Run() })
	}

	r := engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Existing: engine.ExistingOverwrite}
	_, err := e.Restore(t.Context(), r, nil)
	requireCode(t, engine.CodeTargetUnwritable, err)
	require.ErrorContains(t, err, `"config"`)
	require.ErrorContains(t, err, contract.AnnotationOnFileError+"=skip")

	r.Existing, r.OnFileError = engine.ExistingMirror, engine.FileErrorSkip
	res, err := e.Restore(t.Context(), r, nil)
	require.NoError(t, err)
	assert.EqualValues(t, 2, res.LeftOut)
	assert.Contains(t, res.Summary.Omissions, engine.Omission{Reason: engine.OmittedUnwritable, Count: 2, Examples: []string{`"extra"`, `"config"`}})

	for _, name := range []string{"config", "extra"} {
		got, err := os.ReadFile(filepath.Join(target, name))
		require.NoError(t, err)
		assert.Equal(t, "immutable", string(got))
	}

	requireSame(t, volume, target, tree.Skip(func(p string) bool {
		return p == "." || p == "config" || p == "extra" || p == engine.LostAndFound
	}))
}
