package beneath_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

func TestAFileGetsASecondName(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o700))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "c/full"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "c/full/file"), nil, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "c/other"), []byte("other"), 0o600))
			require.NoError(t, os.Symlink("../a", filepath.Join(dir, "c/link")))

			root := openRoot(t, dir, o)
			in, err := root.OpenPath("a/b")
			require.NoError(t, err)
			defer in.Close()
			f, err := in.CreateFile("first", 0)
			require.NoError(t, err)
			_, err = f.Write([]byte("content"))
			require.NoError(t, err)
			id, err := f.Stat()
			require.NoError(t, err)
			require.NoError(t, f.Commit(beneath.Attrs{Mode: 0o640}))
			_, err = f.Stat()
			require.ErrorIs(t, err, os.ErrClosed)

			c, err := root.OpenPath("c")
			require.NoError(t, err)
			defer c.Close()
			for _, name := range []string{"new", "other", "link", "full", "new"} {
				require.NoError(t, c.Link(name, in, "first", id), name)
			}
			require.NoError(t, in.Link("first", in, "first", id), "it is its own name already")

			for _, name := range []string{"a/b/first", "c/new", "c/other", "c/link", "c/full"} {
				var st unix.Stat_t
				require.NoError(t, unix.Lstat(filepath.Join(dir, name), &st))
				assert.Equal(t, id.Ino, st.Ino, name)
				assert.EqualValues(t, 5, st.Nlink, name)
			}
			for _, d := range []*beneath.Dir{in, c} {
				for name := range list(t, d) {
					assert.False(t, beneath.IsTempName(name), name)
				}
			}
		})
	}
}

func TestWhatIsNotExpectedGetsNoSecondName(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "in"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in/file"), []byte("file"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kept"), []byte("kept"), 0o600))
	require.NoError(t, os.Symlink("file", filepath.Join(dir, "in/link")))

	root := openRoot(t, dir, beneath.Options{})
	in, err := root.OpenPath("in")
	require.NoError(t, err)
	defer in.Close()
	file := lookup(t, in, "file")

	for name, test := range map[string]struct {
		name, target string
		want         error
	}{
		"a link to it":          {"kept", "link", beneath.ErrChanged},
		"nothing":               {"kept", "gone", beneath.ErrVanished},
		"a path for a target":   {"kept", "../kept", beneath.ErrName},
		"a path for a name":     {"in/kept", "file", beneath.ErrName},
		"the folder for a name": {"..", "file", beneath.ErrName},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorIs(t, root.Dir().Link(test.name, in, test.target, file), test.want) })
	}

	data, err := os.ReadFile(filepath.Join(dir, "kept"))
	require.NoError(t, err)
	assert.Equal(t, "kept", string(data))
	assert.Len(t, list(t, root.Dir()), 2)
}

func TestAPathIsOpenedNameByName(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o700))
	require.NoError(t, os.Symlink("b", filepath.Join(dir, "a/link")))
	root := openRoot(t, dir, beneath.Options{})

	for path, want := range map[string]error{
		"": nil, "a/b": nil, "a/link": beneath.ErrKind, "a/..": beneath.ErrName, "/a": beneath.ErrName, "a//b": beneath.ErrName, "a/c": beneath.ErrVanished,
	} {
		d, err := root.OpenPath(path)
		require.ErrorIs(t, err, want, path)
		if err == nil {
			require.NoError(t, d.Close())
		}
	}
}
