package kopiaengine_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotgc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

func withoutLostAndFound() tree.Option {
	return tree.Skip(func(p string) bool { return p == engine.LostAndFound })
}

func TestAVolumeWithHardLinksIsRestoredIntoOneOfItsSize(t *testing.T) {
	for kind, mib := range map[string]int{"ext4": 64, "xfs": 300} {
		t.Run(kind, func(t *testing.T) {
			volume, target := loopMount(t, kind, mib), loopMount(t, kind, mib)
			randomFiles(t, volume, 1, mib<<20/3)

			for _, name := range []string{"b", "c", "0/d"} {
				require.NoError(t, os.Link(filepath.Join(volume, "0/0"), filepath.Join(volume, name)))
			}

			e := newEngine(t, store(t, t.TempDir()))
			assert.Empty(t, backup(t, e, volume, "vb-1").Summary.Omissions)

			_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
			require.NoError(t, err)
			requireSame(t, volume, target, withoutLostAndFound())

			if kind == "ext4" {
				return // It has no room for the old file and the new one beside each other.
			}

			require.NoError(t, os.Remove(filepath.Join(target, "b")))
			require.NoError(t, os.WriteFile(filepath.Join(target, "b"), []byte("other"), 0o600))
			require.NoError(t, os.Remove(filepath.Join(target, "c")))
			require.NoError(t, os.Mkdir(filepath.Join(target, "c"), 0o700))

			assert.Empty(t, restore(t, e, "vb-1", target).Summary.Omissions)
			requireSame(t, volume, target, withoutLostAndFound())
		})
	}
}

// Old files must not keep their room while the new ones are written: their names are replaced one by one, in any order.
func TestFilesWithSeveralNamesAreRestoredAnewWhereThereIsNoRoomForTwo(t *testing.T) {
	volume, target := loopMount(t, "ext4", 64), loopMount(t, "ext4", 64)

	const files = 40 // Of one MiB each.

	require.NoError(t, os.Mkdir(filepath.Join(volume, "b"), 0o700))
	randomFiles(t, volume, files, 1<<20)
	require.NoError(t, os.WriteFile(filepath.Join(volume, "single"), []byte("content"), 0o600))

	for i := range files {
		file, other := filepath.Join(volume, fmt.Sprint(i), fmt.Sprint(i)), filepath.Join(volume, "b", fmt.Sprint(files-i))
		require.NoError(t, os.Link(file, other))
	}

	e := newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	for name, r := range map[string]engine.RestoreRequest{
		"after an earlier run": {Resumed: true},
		"one at a time":        {Resumed: true, Parallel: 1},
		"over other data":      {Existing: engine.ExistingOverwrite},
		"as a mirror":          {Existing: engine.ExistingMirror},
	} {
		t.Run(name, func(t *testing.T) {
			restore(t, e, "vb-1", target)

			// Files with several names that the snapshot doesn't have are nobody's to remove but the mirror's.
			other := filepath.Join(target, "other")
			require.NoError(t, os.WriteFile(other, []byte("other"), 0o600))
			require.NoError(t, os.Link(other, filepath.Join(target, "b/other")))

			r.Root, r.Job = open(t, target), "vb-1"
			res, err := e.Restore(t.Context(), r, nil)
			require.NoError(t, err)
			assert.Empty(t, res.Summary.Omissions)

			if r.Existing != engine.ExistingMirror {
				assert.FileExists(t, other)
				assert.FileExists(t, filepath.Join(target, "b/other"))
			}

			require.NoError(t, errors.Join(os.RemoveAll(other), os.RemoveAll(filepath.Join(target, "b/other"))))
			requireSame(t, volume, target, withoutLostAndFound(), tree.Skip(func(p string) bool { return p == "." || p == "b" }))
		})
	}
}

func liveHeap() int64 {
	runtime.GC()

	var m runtime.MemStats

	runtime.ReadMemStats(&m)

	return int64(m.HeapAlloc)
}

// What a restore keeps in mind of a file until its other names come is little, however long its path is.
func TestLongPathsOfFilesWithSeveralNamesTakeLittleMemory(t *testing.T) {
	needRoot(t)

	const levels, files = 300, 600 // The path has 75 KB, those of all files 45 MB.

	volume, target := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink("x", filepath.Join(volume, "link"))) // It comes after the folders, and before the names n….

	at, err := unix.Open(volume, unix.O_PATH, 0)
	require.NoError(t, err)

	for range levels {
		name := strings.Repeat("d", 250)
		require.NoError(t, unix.Mkdirat(at, name, 0o700))

		below, err := unix.Openat(at, name, unix.O_PATH, 0)
		require.NoError(t, errors.Join(err, unix.Close(at)))

		at = below
	}

	for i := range files {
		file := filepath.Join(volume, fmt.Sprint("n", i))
		require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
		require.NoError(t, unix.Linkat(unix.AT_FDCWD, file, at, fmt.Sprint(i), 0))
	}

	require.NoError(t, unix.Close(at))

	e := newEngine(t, store(t, t.TempDir()))
	assert.Empty(t, backup(t, e, volume, "vb-1").Summary.Omissions)

	before, meanwhile := liveHeap(), int64(0)

	_, err = e.Restore(t.Context(), engine.RestoreRequest{
		Root: open(t, target), Job: "vb-1", Parallel: 1,
		LinkAttributes: func(engine.LinkAttributes) error {
			meanwhile = liveHeap()

			return nil
		},
	}, nil)
	require.NoError(t, err)
	assert.Less(t, meanwhile-before, int64(16<<20))
	assert.NotZero(t, meanwhile)

	for i := range files {
		var st unix.Stat_t
		require.NoError(t, unix.Stat(filepath.Join(target, fmt.Sprint("n", i)), &st))
		require.EqualValues(t, 2, st.Nlink)
	}
}

func putObject(ctx context.Context, t *testing.T, w repo.RepositoryWriter, content string) string {
	t.Helper()

	o := w.NewObjectWriter(ctx, object.WriterOptions{})
	_, err := o.Write([]byte(content))
	require.NoError(t, err)

	id, err := o.Result()
	require.NoError(t, errors.Join(err, o.Close()))

	return id.String()
}

// rewriteList has the snapshot name a list of hard links of the test's making; the empty one leaves it without.
func rewriteList(t *testing.T, s repository.Settings, id, list string) {
	t.Helper()

	rep, err := repository.Open(t.Context(), s)
	require.NoError(t, err)

	defer func() { require.NoError(t, rep.Close(context.Background())) }() // The test's context is done by then.

	require.NoError(t, repo.WriteSession(t.Context(), rep, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		m, err := snapshot.LoadSnapshot(ctx, w, manifest.ID(id))
		require.NoError(t, err)

		m.Tags["tag:"+contract.TagLinks] = list
		if strings.Contains(list, "\n") {
			m.Tags["tag:"+contract.TagLinks] = putObject(ctx, t, w, list)
		}

		return snapshot.UpdateSnapshot(ctx, w, m)
	}))
}

func TestAListOfHardLinksThatIsNoneIsRefusedByName(t *testing.T) {
	const header = `{"stream":"estiba:hardlinks","version":1}` + "\n"

	name := func(n string) string { return base64.StdEncoding.EncodeToString([]byte(n)) }

	for title, test := range map[string]struct{ list, says string }{
		"no object":            {"what", "is no object"},
		"nothing of the kind":  {"{}\n", "it begins with"},
		"a newer version":      {`{"stream":"estiba:hardlinks","version":2}` + "\n", "restore with a newer one"},
		"one without an end":   {header, "it ends after 0 names"},
		"one that lies":        {header + `{"folder":"","end":7}` + "\n", "it has 0 names, and its end says 7"},
		"one that goes on":     {header + `{"folder":"","end":0}` + "\n{}\n", "it goes on after its end"},
		"one that is cut off":  {header + `{"folder":"","na` + "\n", "after 0 names"},
		"a path for a name":    {header + `{"folder":"","names":[{"n":"` + name("../x") + `","i":1}]}` + "\n", "is no name"},
		"a line without bound": {header + strings.Repeat(" ", 2<<20) + "\n", "it ends after 0 names"},
	} {
		t.Run(title, func(t *testing.T) {
			volume, target := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o600))
			require.NoError(t, os.Link(filepath.Join(volume, "file"), filepath.Join(volume, "name")))

			st := store(t, t.TempDir())
			e := newEngine(t, st)
			rewriteList(t, settings(t, st), backup(t, e, volume, "vb-1").SnapshotID, test.list)

			_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
			requireCode(t, engine.CodeRepositoryDamaged, err)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, contract.AnnotationOnFileError)

			entries, err := os.ReadDir(target)
			require.NoError(t, err)
			assert.Empty(t, entries, "nothing is written")

			res, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1", OnFileError: engine.FileErrorSkip}, nil)
			require.NoError(t, err)
			assert.EqualValues(t, 1, res.LeftOut)
			requireSame(t, volume, target, tree.Without(tree.HardLinks))
		})
	}
}

// What the list says decides nothing but which equal files are one.
func TestAForgedListOfHardLinksMixesNoFiles(t *testing.T) {
	volume, target := t.TempDir(), t.TempDir()

	for i, n := range []string{"a", "b", "c"} {
		require.NoError(t, os.WriteFile(filepath.Join(volume, n), []byte(n[:i/2]+"x"), 0o600)) // The first two are the same.
	}

	require.NoError(t, os.Chmod(filepath.Join(volume, "b"), 0o640))

	st := store(t, t.TempDir())
	e := newEngine(t, st)
	id := backup(t, e, volume, "vb-1").SnapshotID

	rewriteList(t, settings(t, st), id, `{"stream":"estiba:hardlinks","version":1}
{"folder":"","names":[{"n":"YQ==","i":1},{"n":"Yg==","i":1},{"n":"Yw==","i":1},{"n":"ZA==","i":1}]}
{"folder":"","end":4}
`)

	res, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
	require.NoError(t, err)
	requireSame(t, volume, target)
	require.Len(t, res.Summary.Omissions, 1)
	assert.Equal(t, engine.OmittedHardLink, res.Summary.Omissions[0].Reason)
}

func TestTheListOfHardLinksIsFoundAndForgottenWithItsSnapshotOnly(t *testing.T) {
	volume := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o600))
	require.NoError(t, os.Link(filepath.Join(volume, "file"), filepath.Join(volume, "name")))

	st := store(t, t.TempDir())
	e := newEngine(t, st)
	backup(t, e, volume, "vb-1")
	backup(t, e, volume, "vb-2")

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 2)

	_, err = e.Forget(t.Context(), engine.ForgetRequest{Job: "vb-1"})
	require.NoError(t, err)

	rep, err := repository.Open(t.Context(), settings(t, st))
	require.NoError(t, err)

	defer func() { require.NoError(t, rep.Close(context.Background())) }() // The test's context is done by then.

	ms, err := rep.FindManifests(t.Context(), map[string]string{manifest.TypeLabelKey: snapshot.ManifestType})
	require.NoError(t, err)
	require.Len(t, ms, 2, "the snapshot of the other job and its list")

	// Kopia's own clearing up, by which all is to go that no manifest names.
	require.NoError(t, repo.DirectWriteSession(t.Context(), rep, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return snapshotgc.Run(ctx, w, true, maintenance.SafetyNone, hours())
	}))
	require.NoError(t, rep.Refresh(t.Context()))

	target := t.TempDir()
	_, err = e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-2"}, nil)
	require.NoError(t, err)
	requireSame(t, volume, target)

	var one, two unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(target, "file"), &one))
	require.NoError(t, unix.Stat(filepath.Join(target, "name"), &two))
	assert.Equal(t, one.Ino, two.Ino)

	_, err = e.Forget(t.Context(), engine.ForgetRequest{Job: "vb-2"})
	require.NoError(t, err)
	require.NoError(t, rep.Refresh(t.Context()))

	ms, err = rep.FindManifests(t.Context(), map[string]string{manifest.TypeLabelKey: snapshot.ManifestType})
	require.NoError(t, err)
	assert.Empty(t, ms)
}
