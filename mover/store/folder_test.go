package store_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// longID is long enough to be put below two folders: p/012/….
const longID = blob.ID("p0123456789abcdef0123456789abcdef-s1")

// where returns the path of a blob in kopia's layout.
func where(id blob.ID) string {
	if len(id) <= 20 {
		return string(id) + ".f"
	}

	return filepath.Join(string(id[:1]), string(id[1:4]), string(id[4:])+".f")
}

func repositoryOf(root string) string { return filepath.Join(root, "cluster", folder) }

// once makes no second attempts.
func once() store.Options { return store.Options{RetryFor: -1, StallAfter: 5 * time.Second} }

func TestTheStockKopiaSharesTheFolder(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	ours := openFolder(t, root, once())
	stock, err := filesystem.New(t.Context(), &filesystem.Options{Path: repositoryOf(root)}, false)
	require.NoError(t, err)

	for i, st := range []blob.Storage{ours, stock} {
		for j := range 50 {
			id := blob.ID(fmt.Sprintf("%c%032x%d", 'p'+rune(j%3), j*1_000_003, i))
			require.NoError(t, st.PutBlob(t.Context(), id, store.Memory(noise(j)), blob.PutOptions{}))
		}

		require.NoError(t, st.PutBlob(t.Context(), blob.ID(fmt.Sprintf("short%d", i)), store.Memory("x"), blob.PutOptions{}))
	}

	for _, prefix := range []blob.ID{"", "p", "p0", "p00", "p000", "p0000000", "q", "short", "z"} {
		theirs, err := blob.ListAllBlobs(t.Context(), stock, prefix)
		require.NoError(t, err)
		mine, err := blob.ListAllBlobs(t.Context(), ours, prefix)
		require.NoError(t, err)
		require.ElementsMatch(t, idsOf(theirs), idsOf(mine), "prefix %q", prefix)

		for _, m := range theirs {
			got, err := read(t.Context(), ours, m.BlobID)
			require.NoError(t, err)
			require.Len(t, got, int(m.Length))

			var out store.Buffer

			require.NoError(t, stock.GetBlob(t.Context(), m.BlobID, 0, -1, &out))
			require.Equal(t, string(got), string(out.Bytes()))
		}
	}
}

func idsOf(all []blob.Metadata) (ids []string) {
	for _, m := range all {
		ids = append(ids, string(m.BlobID))
	}

	return ids
}

func TestAFolderIsListedPageByPage(t *testing.T) {
	t.Parallel()

	const folders, each = 26, 1000 // more than two pages

	root := t.TempDir()
	st := openFolder(t, root, once())

	for i := range folders {
		dir := filepath.Join(repositoryOf(root), "p", fmt.Sprintf("%03x", i*7))
		require.NoError(t, os.MkdirAll(dir, 0o700))

		for j := range each {
			require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%028d.f", j)), nil, 0o600))
		}
	}

	require.NoError(t, st.PutBlob(t.Context(), "short", store.Memory("x"), blob.PutOptions{}))

	all, err := blob.ListAllBlobs(t.Context(), st, "")
	require.NoError(t, err)

	seen := map[blob.ID]bool{}
	for _, m := range all {
		require.False(t, seen[m.BlobID], "%s is given twice", m.BlobID)
		seen[m.BlobID] = true
	}

	require.Len(t, seen, folders*each+1)
}

// A link out of the repository, in each place of a path, is neither read nor written
// through, nor is what lies behind it removed.
func TestNoBlobIsReachedThroughALink(t *testing.T) {
	t.Parallel()

	const secret = "SECRET-TOKEN"

	for _, part := range []string{"plugins", "plugins/estiba/repositories/ns/id", "p", "p/012", where(longID), ".shards"} {
		t.Run(strings.ReplaceAll(part, "/", "|"), func(t *testing.T) {
			t.Parallel()

			root, outside := t.TempDir(), t.TempDir()
			st := openFolder(t, root, once())
			require.NoError(t, st.PutBlob(t.Context(), longID, store.Memory("content"), blob.PutOptions{}))
			require.NoError(t, st.Close(t.Context()))

			at := filepath.Join(repositoryOf(root), part)
			if strings.HasPrefix(part, "plugins") {
				at = filepath.Join(root, "cluster", part)
			}

			// All that was there lies outside now, where the link leads.
			target := filepath.Join(outside, "target")
			require.NoError(t, os.Rename(at, target))
			require.NoError(t, os.Symlink(target, at))

			if part == where(longID) {
				require.NoError(t, os.WriteFile(target, []byte(secret), 0o600))
			}

			before := treeOf(t, outside)

			st, err := store.Open(t.Context(), settings.Settings{Kind: settings.Filesystem, Path: root, Prefix: "cluster"}, nil, folder, once())
			if strings.HasPrefix(part, "plugins") || part == ".shards" {
				require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, "it is a link")

				return
			}

			require.NoError(t, err)

			got, err := read(t.Context(), st, longID)
			require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%v", err)
			require.Empty(t, got)

			_, err = st.GetMetadata(t.Context(), longID)
			require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%v", err)

			all, err := blob.ListAllBlobs(t.Context(), st, "")
			require.Empty(t, all)

			if part != where(longID) {
				require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "what lies behind it isn't lost without a word: %v", err)
				require.Error(t, st.DeleteBlob(t.Context(), longID))
			}

			err = st.PutBlob(t.Context(), longID, store.Memory("new"), blob.PutOptions{})
			if part == where(longID) { // the link itself is replaced
				require.NoError(t, err)
				require.NoError(t, st.DeleteBlob(t.Context(), longID))
			} else {
				require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%v", err)
			}

			require.Equal(t, before, treeOf(t, outside))
		})
	}
}

// treeOf returns the contents of a folder by path.
func treeOf(t *testing.T, root string) map[string]string {
	t.Helper()

	tree := map[string]string{}

	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var content []byte

			content, err = os.ReadFile(path)
			tree[path] = string(content)
		}

		return err
	}))

	return tree
}

func TestNoSmallFileIsReachedThroughALink(t *testing.T) {
	t.Parallel()

	const key = "plugins/estiba/keys/ns/id.json"

	for _, part := range []string{"plugins", "plugins/estiba/keys", "plugins/estiba/keys/ns", key} {
		t.Run(strings.ReplaceAll(part, "/", "|"), func(t *testing.T) {
			t.Parallel()

			root := t.TempDir()
			o, err := store.OpenObjects(settings.Settings{Kind: settings.Filesystem, Path: root}, nil, once())
			require.NoError(t, err)
			require.NoError(t, o.Put(t.Context(), key, []byte("one")))

			// A link that stays in the store is one, too.
			require.NoError(t, os.Rename(filepath.Join(root, part), filepath.Join(root, "target")))
			require.NoError(t, os.Symlink(filepath.Join(root, "target"), filepath.Join(root, part)))

			before := treeOf(t, root)

			_, err = o.Get(t.Context(), key)
			require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%v", err)
			_, err = o.Exists(t.Context(), key)
			require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%v", err)

			if part != key {
				require.Error(t, o.Put(t.Context(), key, []byte("two")))
				_, err = o.List(t.Context(), "plugins/estiba/keys/ns")
				require.Error(t, err)
			}

			require.Error(t, o.PutIfAbsent(t.Context(), key, []byte("two")))
			require.Equal(t, before, treeOf(t, root))
		})
	}
}

// A pipe in the place of a blob has nobody at its other end.
func TestWhatIsNoFileIsNotWaitedFor(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	st := openFolder(t, root, once())
	path := filepath.Join(repositoryOf(root), where(longID))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))

	for name, make := range map[string]func() error{
		"a pipe":   func() error { return unix.Mkfifo(path, 0o600) },
		"a socket": func() error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
		"a folder": func() error { return os.Mkdir(path, 0o700) },
		"a device": func() error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
	} {
		if err := make(); name == "a device" && err != nil {
			continue // a device is root's to make
		} else {
			require.NoError(t, err)
		}

		_, err := read(t.Context(), st, longID)
		require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%s: %v", name, err)

		_, err = st.GetMetadata(t.Context(), longID)
		require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%s: %v", name, err)

		all, err := blob.ListAllBlobs(t.Context(), st, "")
		require.NoError(t, err, "%s", name)
		require.Empty(t, all, "%s", name)
		require.NoError(t, os.Remove(path))
	}
}

func TestFilesOfWritersThatDiedAreRemoved(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	st := openFolder(t, root, once())
	require.NoError(t, st.PutBlob(t.Context(), longID, store.Memory("content"), blob.PutOptions{}))

	path := filepath.Join(repositoryOf(root), where(longID))
	old, young := path+".tmp.0123456789abcdef", path+".tmp.fedcba9876543210"

	for file, age := range map[string]time.Duration{old: 25 * time.Hour, young: time.Hour} {
		require.NoError(t, os.WriteFile(file, []byte("half"), 0o600))
		require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(-age)))
	}

	readOnly := once()
	readOnly.ReadOnly = true

	_, err := blob.ListAllBlobs(t.Context(), openFolder(t, root, readOnly), "")
	require.NoError(t, err)
	require.FileExists(t, old, "who only reads removes nothing")

	all, err := blob.ListAllBlobs(t.Context(), st, "")
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.NoFileExists(t, old)
	require.FileExists(t, young)
}

func TestAFolderThatIsFullSaysSo(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	if err := unix.Mount("none", root, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("there is no way to a file system that is full: %v", err)
	}

	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })

	o := store.Options{Place: "folder of location default"} // with all its patience
	client := brokered(t, openFolder(t, root, o), store.BrokerOptions{})

	err := client.PutBlob(t.Context(), longID, store.Memory(noise(1<<20)), blob.PutOptions{})
	require.Equal(t, engine.CodeStoreFull, engine.CodeOf(err), "%v", err)
	require.Equal(t, engine.CodeStoreFull, engine.CodeOf(client.Err()), "whatever kopia makes of it")
	require.ErrorContains(t, err, "location default")

	left, err := filepath.Glob(filepath.Join(repositoryOf(root), "p/012/*"))
	require.NoError(t, err)
	require.Empty(t, left, "half a file would take up room")
}

func TestAFolderWhoseLayoutIsNoneIsRefused(t *testing.T) {
	t.Parallel()

	for _, shards := range []string{"", "{", `{"default":[-1,3],"maxNonShardedLength":20}`, `{"default":[0]}`, `{"default":[1,3],"overrides":[{"prefix":"p","shards":[1000]}]}`} {
		root := t.TempDir()
		require.NoError(t, os.MkdirAll(repositoryOf(root), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(repositoryOf(root), ".shards"), []byte(shards), 0o600))

		_, err := store.Open(t.Context(), settings.Settings{Kind: settings.Filesystem, Path: root, Prefix: "cluster"}, nil, folder, once())
		require.Equal(t, engine.CodeRepositoryDamaged, engine.CodeOf(err), "%q: %v", shards, err)
	}
}
