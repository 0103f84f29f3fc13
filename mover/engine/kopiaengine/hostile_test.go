package kopiaengine_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// put stores an object and gives its ID; those of folders are to be in kopia's metadata.
type put func(content string, folder bool) object.ID

// forgeRoot saves a snapshot of a job with the root entry that make gives.
func forgeRoot(t *testing.T, st blob.Storage, job string, root func(put) *snapshot.DirEntry) {
	t.Helper()

	rep, err := repository.Open(t.Context(), settings(t, st))
	require.NoError(t, err)

	defer func() { require.NoError(t, rep.Close(context.Background())) }() // The test's context is done by then.

	require.NoError(t, repo.WriteSession(t.Context(), rep, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		store := func(content string, folder bool) object.ID {
			var options object.WriterOptions
			if folder {
				options.Prefix = "k"
			}

			o := w.NewObjectWriter(ctx, options)
			_, err := o.Write([]byte(content))
			require.NoError(t, err)

			id, err := o.Result()
			require.NoError(t, errors.Join(err, o.Close()))

			return id
		}

		_, err := snapshot.SaveSnapshot(ctx, w, &snapshot.Manifest{
			Source:    snapshot.SourceInfo{Host: "shop", UserName: contract.SnapshotUser, Path: "/x"},
			RootEntry: root(store),
			Tags:      map[string]string{"tag:" + contract.TagJob: job},
		})

		return err
	}))
}

// forge saves a snapshot of a job whose root folder is the JSON given; FILE in it
// is the ID of an object with the content "x", ESCAPE that of one with the target of
// a link to the canary, LONG that of one with 5 KB.
func forge(t *testing.T, st blob.Storage, job, folder string) {
	t.Helper()
	forgeRoot(t, st, job, func(store put) *snapshot.DirEntry {
		folder = strings.NewReplacer(
			"FILE", store("x", false).String(),
			"ESCAPE", store("../canary", false).String(),
			"LONG", store(strings.Repeat("l", 5<<10), false).String(),
		).Replace(folder)

		return folderEntry(store(folder, true))
	})
}

func folderEntry(id object.ID) *snapshot.DirEntry {
	return &snapshot.DirEntry{Type: snapshot.EntryTypeDirectory, Permissions: 0o755, ObjectID: id}
}

// list is the JSON of a folder.
func list(entries ...string) string {
	return `{"stream":"kopia:directory","entries":[` + strings.Join(entries, ",") + `],"summary":null}`
}

// hostile restores a job's snapshot beside a canary, which must stay as it was, within a
// bounded time, and returns the folder it was restored to.
func hostile(t *testing.T, e *kopiaengine.Engine, job string) (string, error) {
	t.Helper()

	outside := t.TempDir()
	target, canary, kept := filepath.Join(outside, "target"), filepath.Join(outside, "canary"), t.TempDir()

	for _, dir := range []string{canary, kept} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "x"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "x/secret"), []byte("secret"), 0o600))
		require.NoError(t, os.Chtimes(filepath.Join(dir, "x/secret"), time.Unix(1, 0), time.Unix(1, 0)))
		require.NoError(t, os.Chtimes(filepath.Join(dir, "x"), time.Unix(2, 0), time.Unix(2, 0)))
		require.NoError(t, os.Chmod(dir, 0o755))
		require.NoError(t, os.Chtimes(dir, time.Unix(3, 0), time.Unix(3, 0)))
	}

	require.NoError(t, os.Mkdir(target, 0o700))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	_, failure := e.Restore(ctx, engine.RestoreRequest{Root: open(t, target), Job: job}, nil)
	require.NoError(t, ctx.Err(), "it hung")

	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	assert.Len(t, entries, 2)
	assert.NoFileExists(t, "/etc/escape")
	requireSame(t, kept, canary)

	return target, failure
}

func TestARepositoryThatLiesHarmsNothing(t *testing.T) {
	needRoot(t)

	file := func(name string) string {
		return fmt.Sprintf(`{"name":%s,"type":"f","mode":"0644","size":1,"obj":"FILE"}`, name)
	}
	link := func(name string) string {
		return fmt.Sprintf(`{"name":%s,"type":"s","mode":"0777","obj":"ESCAPE"}`, name)
	}

	st := store(t, t.TempDir())
	e := newEngine(t, st)
	n := 0

	for name, folder := range map[string]string{
		"a name that climbs":              list(file(`".."`)),
		"the folder itself":               list(file(`"."`)),
		"no name":                         list(file(`""`)),
		"a path for a name":               list(file(`"../escape"`)),
		"an absolute path":                list(file(`"/etc/escape"`)),
		"a NUL":                           list(file(`"a\u0000b"`)),
		"a name twice":                    list(file(`"a"`), file(`"a"`)),
		"a name twice, once in escapes":   list(file(`"\u00e4"`), file(`"\udbff\udfc3\udbff\udfa4"`)),
		"a link and a file through it":    list(link(`"a"`), file(`"a"`)),
		"a file and a link of one name":   list(file(`"a"`), link(`"a"`)),
		"a folder and a link of one name": list(`{"name":"a","type":"d","mode":"0755","obj":"FILE"}`, link(`"a"`)),
		"a path through a link":           list(link(`"a"`), file(`"a/x"`)),
		"names out of order":              list(file(`"b"`), file(`"a"`)),
		"a folder and a file of one name": list(`{"name":"a","type":"d","mode":"0755","obj":"FILE"}`, file(`"a"`)),
		"a type that is none":             list(`{"name":"a","type":"x","obj":"FILE"}`),
		"a size that is not the content's": list(
			`{"name":"a","type":"f","mode":"0644","size":1000000000000,"obj":"FILE"}`),
		"a size that is less than the content's": list(
			`{"name":"a","type":"f","mode":"0644","size":0,"obj":"FILE"}`),
		"a size below nothing": list(
			`{"name":"a","type":"f","mode":"0644","size":-1,"obj":"FILE"}`),
		"a folder that is none":        list(`{"name":"a","type":"d","mode":"0755","obj":"FILE"}`),
		"an object that is not there":  list(`{"name":"a","type":"f","size":1,"obj":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}`),
		"a folder that ends too early": `{"entries":[` + file(`"a"`),
		"no JSON":                      "x",
		"a list that is none":          `{"entries":{}}`,
		"nothing":                      `{}`,
	} {
		n++
		job := fmt.Sprintf("vb-%d", n)

		t.Run(name, func(t *testing.T) {
			forge(t, st, job, folder)

			_, err := hostile(t, e, job)
			requireCode(t, engine.CodeRepositoryDamaged, err)
		})
	}
}

func TestALinkThatNoFileSystemHoldsIsNamed(t *testing.T) {
	st := store(t, t.TempDir())
	e := newEngine(t, st)
	forge(t, st, "vb-1", list(`{"name":"far","type":"s","mode":"0777","obj":"LONG"}`))

	_, err := hostile(t, e, "vb-1")
	requireCode(t, engine.CodeTargetUnwritable, err)
	require.ErrorContains(t, err, `"far"`)
}

// A second entry must not be written through the link that the first one was: here
// they don't come from one listing, but the link is in the volume already.
func TestNothingIsWrittenThroughALinkThatIsThere(t *testing.T) {
	needRoot(t)

	outside := t.TempDir()
	volume, target, canary := filepath.Join(outside, "volume"), filepath.Join(outside, "target"), filepath.Join(outside, "canary")

	for _, dir := range []string{volume, target, canary} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}

	require.NoError(t, os.Mkdir(filepath.Join(volume, "folder"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(volume, "folder/inner"), []byte("restored"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(volume, "file"), []byte("restored"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(canary, "secret"), []byte("secret"), 0o600))

	e := newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	require.NoError(t, os.Symlink(canary, filepath.Join(target, "folder")))
	require.NoError(t, os.Symlink(filepath.Join(canary, "secret"), filepath.Join(target, "file")))

	restore(t, e, "vb-1", target)
	requireSame(t, volume, target)

	entries, err := os.ReadDir(canary)
	require.NoError(t, err)
	require.Len(t, entries, 1)

	content, err := os.ReadFile(filepath.Join(canary, "secret"))
	require.NoError(t, err)
	assert.Equal(t, "secret", string(content))
}

func TestARootThatIsNoFolderIsRefused(t *testing.T) {
	st := store(t, t.TempDir())
	e := newEngine(t, st)

	for job, kind := range map[string]snapshot.EntryType{"vb-1": snapshot.EntryTypeFile, "vb-2": snapshot.EntryTypeSymlink, "vb-3": "x"} {
		t.Run(string(kind), func(t *testing.T) {
			forgeRoot(t, st, job, func(store put) *snapshot.DirEntry {
				return &snapshot.DirEntry{Type: kind, Permissions: 0o755, ObjectID: store("../canary", false), FileSize: 9}
			})

			_, err := hostile(t, e, job)
			requireCode(t, engine.CodeRepositoryDamaged, err)
			require.ErrorContains(t, err, "not a folder")
		})
	}
}

// Absurd is what may still be true: it is restored, and takes no more than it must.
func TestAnAbsurdlyDeepFolderIsRestored(t *testing.T) {
	needRoot(t)

	const levels = 1000

	st := store(t, t.TempDir())
	e := newEngine(t, st)

	forgeRoot(t, st, "vb-1", func(store put) *snapshot.DirEntry {
		id := store(list(), true)
		for range levels {
			id = store(list(fmt.Sprintf(`{"name":"d","type":"d","mode":"0755","obj":"%s"}`, id)), true)
		}

		return folderEntry(id)
	})

	target, err := hostile(t, e, "vb-1")
	require.NoError(t, err)

	assert.DirExists(t, filepath.Join(target, strings.Repeat("d/", levels)))
}

// Whoever has the key can store a content under any name, and so a folder that holds itself.
func TestAFolderThatHoldsItselfIsRefused(t *testing.T) {
	needRoot(t)

	id := "k" + hex.EncodeToString([]byte(forgedHash))

	for name, between := range map[string]int{"at once": 0, "after others": 3} {
		t.Run(name, func(t *testing.T) {
			const job = "vb-1"

			st := store(t, t.TempDir())
			require.NoError(t, initializeForged(t.Context(), st))

			e := kopiaengine.New(kopiaengine.Config{Repository: settings(t, st)})
			require.NoError(t, e.CreateRepository(t.Context(), engine.FormatFast))

			forgeRoot(t, st, job, func(store put) *snapshot.DirEntry {
				next := id
				for range between {
					next = store(list(fmt.Sprintf(`{"name":"d","type":"d","mode":"0755","obj":"%s"}`, next)), true).String()
				}

				return folderEntry(store(fmt.Sprintf(`{"forged":%d,"entries":[{"name":"d","type":"d","mode":"0755","obj":"%s"}]}`, between, next), true))
			})

			_, err := hostile(t, e, job)
			requireCode(t, engine.CodeRepositoryDamaged, err)
			require.ErrorContains(t, err, "holds itself")
		})
	}
}

// What would steer kopia is written in full knowledge of the repository: the placeholder
// stands for another volume's tree, the ignore file is a link to one of the node's files.
func TestFilesThatSteerKopiaHaveNoPower(t *testing.T) {
	needRoot(t)

	victim, volume, target := t.TempDir(), t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(victim, "secret"), []byte("secret"), 0o600))

	st := store(t, t.TempDir())
	e := newEngine(t, st)
	stolen := placeholder(t, st, backup(t, e, victim, "vb-1").SnapshotID)

	outside := filepath.Join(t.TempDir(), "patterns")
	require.NoError(t, os.WriteFile(outside, []byte("*\n"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(volume, ".kopiaignore")))

	for _, name := range []string{"stolen.kopia-entry", ".kopia-entry", "in/stolen.kopia-entry", "in/plain"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(volume, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(volume, name), stolen, 0o600))
	}

	require.NoError(t, os.WriteFile(filepath.Join(volume, "in/CACHEDIR.TAG"), []byte("Signature: 8a477f597d28d172789f06886806bc55"), 0o600))
	// Who opens this one waits for ever.
	require.NoError(t, unix.Mkfifo(filepath.Join(volume, "in/.kopiaignore"), 0o600))

	res := backup(t, e, volume, "vb-2")
	require.Len(t, res.Summary.Omissions, 1)
	assert.Equal(t, engine.OmittedFIFO, res.Summary.Omissions[0].Reason)

	restore(t, e, "vb-2", target)
	requireSame(t, volume, target, tree.Skip(func(p string) bool { return p == "in/.kopiaignore" }))
}

// placeholder returns what kopia would take for the tree of a snapshot.
func placeholder(t *testing.T, st blob.Storage, id string) []byte {
	t.Helper()

	rep, err := repository.Open(t.Context(), settings(t, st))
	require.NoError(t, err)

	m, err := snapshot.LoadSnapshot(t.Context(), rep, manifest.ID(id))
	require.NoError(t, errors.Join(err, rep.Close(t.Context())))

	m.RootEntry.Name = "../stolen"
	text, err := json.Marshal(m.RootEntry)
	require.NoError(t, err)

	return text
}

func TestAMountInAVolumeIsLeftOutByName(t *testing.T) {
	needRoot(t)

	volume, target, foreign := t.TempDir(), t.TempDir(), tmpfs(t, "1m")
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "secret"), []byte("another file system's"), 0o600))

	place := filepath.Join(volume, "mounted")
	require.NoError(t, os.Mkdir(place, 0o755))
	require.NoError(t, unix.Mount(foreign, place, "", unix.MS_BIND, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(place, unix.MNT_DETACH)) })

	e := newEngine(t, store(t, t.TempDir()))
	res := backup(t, e, volume, "vb-1")
	require.Len(t, res.Summary.Omissions, 1)
	assert.Equal(t, engine.OmittedMount, res.Summary.Omissions[0].Reason)
	assert.Equal(t, []string{`"mounted"`}, res.Summary.Omissions[0].Examples)

	restore(t, e, "vb-1", target)
	assert.NoFileExists(t, filepath.Join(target, "mounted/secret"))
}
