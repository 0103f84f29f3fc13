package kopiaengine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	kfs "github.com/kopia/kopia/fs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

// listedIn lists the only entry of a volume as a pass does.
func listedIn(t *testing.T, volume string) (*source, kfs.Entry) {
	t.Helper()

	f, err := os.Open(volume)
	require.NoError(t, err)

	root, err := beneath.Open(f, beneath.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(root.Close(), f.Close())) })

	src := newSource(nil, nil, nil, func() {})
	dir, err := newRoot(src, root)
	require.NoError(t, err)

	i, err := dir.Iterate(t.Context())
	require.NoError(t, err)

	defer i.Close()

	e, err := i.Next(t.Context())
	require.NoError(t, err)
	require.NotNil(t, e)

	return src, e
}

func TestAnEntryThatIsNotInTheSnapshotDoesNotCountAsKept(t *testing.T) {
	volume := t.TempDir()
	path := filepath.Join(volume, "entry")
	require.NoError(t, os.WriteFile(path, []byte("content"), 0o600))

	src, e := listedIn(t, volume)
	require.NoError(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700)))

	_, err := e.(kfs.File).Open(t.Context())
	require.ErrorIs(t, err, beneath.ErrKind)
	assert.Contains(t, src.changedPaths(), "entry", "another pass is to find what is there")

	require.NoError(t, src.settle())
	assert.Equal(t, []engine.Omission{{Reason: engine.OmittedReplaced, Count: 1, Examples: []string{`"entry"`}}}, src.omitted.list())
}

func TestASnapshotWithoutAWholeFolderIsNone(t *testing.T) {
	volume := t.TempDir()
	path := filepath.Join(volume, "folder")
	require.NoError(t, os.Mkdir(path, 0o700))

	src, e := listedIn(t, volume)
	require.NoError(t, errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)))

	_, err := e.(kfs.Directory).Iterate(t.Context())
	require.ErrorIs(t, err, beneath.ErrKind)

	err = src.settle()
	assert.Equal(t, engine.CodeSourceUnreadable, engine.CodeOf(err))
	assert.ErrorContains(t, err, `"folder": it was replaced again and again`)
}

func TestAnEntryThatVanishedIsNotOneThatChanged(t *testing.T) {
	volume := t.TempDir()
	path := filepath.Join(volume, "entry")
	require.NoError(t, os.WriteFile(path, nil, 0o600))

	src, e := listedIn(t, volume)
	require.NoError(t, os.Remove(path))

	_, err := e.(kfs.File).Open(t.Context())
	require.ErrorIs(t, err, beneath.ErrVanished)
	assert.Empty(t, src.changedPaths())

	require.NoError(t, src.settle())
	assert.Equal(t, []engine.Omission{{Reason: engine.OmittedVanished, Count: 1, Examples: []string{`"entry"`}}}, src.omitted.list())
}

func TestWhatIsReplacedAgainAndAgainIsReadWhereItLies(t *testing.T) {
	volume := t.TempDir()
	path := filepath.Join(volume, "entry")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))

	src, e := listedIn(t, volume)
	f := e.(*file)
	tries := 0

	r, err := opened(&f.node, func(e beneath.Entry) (*beneath.File, error) {
		if tries++; tries <= 20 {
			// Another file is there, and yet another one by the time that it is opened.
			require.NoError(t, errors.Join(os.WriteFile(path+".new", []byte("new"), 0o600), os.Rename(path+".new", path)))
		}

		return f.dir.OpenFile(e)
	})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	assert.Equal(t, 21, tries)
	assert.Contains(t, src.changedPaths(), "entry")

	require.NoError(t, src.settle())
	require.Len(t, src.omitted.list(), 1)
	assert.Equal(t, engine.OmittedChanged, src.omitted.list()[0].Reason)
}
