package app

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
)

// list returns one link after the other.
func list(links ...engine.LinkAttributes) func() (engine.LinkAttributes, error) {
	return func() (engine.LinkAttributes, error) {
		if len(links) == 0 {
			return engine.LinkAttributes{}, io.EOF
		}

		next := links[0]
		links = links[1:]

		return next, nil
	}
}

func linkAt(t *testing.T, path string) (owner [2]uint32, at time.Time) {
	t.Helper()

	var st unix.Stat_t
	require.NoError(t, unix.Lstat(path, &st))

	return [2]uint32{st.Uid, st.Gid}, time.Unix(st.Mtim.Unix()).UTC()
}

func TestLinksGetTheirOwnerAndTime(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		t.Skip("needs user 0, to give files away")
	}

	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))

	at := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)

	var links []engine.LinkAttributes

	for i, path := range []string{"top", "a/one", "a/two", "a/b/\xff", "last"} {
		require.NoError(t, os.Symlink("target", filepath.Join(dir, path)))

		links = append(links, engine.LinkAttributes{Path: []byte(path), UID: uint32(1000 + i), GID: uint32(2000 + i), ModTime: at})
	}

	volume, err := os.Open(dir)
	require.NoError(t, err)

	defer volume.Close()

	gone := engine.LinkAttributes{Path: []byte("gone")}

	omitted, err := setLinks(t.Context(), volume, true, list(append([]engine.LinkAttributes{gone}, links...)...))
	require.NoError(t, err)
	assert.Equal(t, []engine.Omission{{Reason: engine.OmittedOwner, Count: 1, Examples: []string{`"gone"`}}}, omitted)

	for _, l := range links {
		owner, got := linkAt(t, filepath.Join(dir, string(l.Path)))
		assert.Equal(t, [2]uint32{l.UID, l.GID}, owner, string(l.Path))
		assert.Equal(t, at, got, string(l.Path))
	}
}

// The list is what a worker says that may have been taken over.
func TestAListOfLinksThatLiesHarmsNothing(t *testing.T) {
	t.Parallel()

	if os.Geteuid() != 0 {
		t.Skip("needs user 0, to give files away")
	}

	parent := t.TempDir()
	dir := filepath.Join(parent, "volume")
	outside := filepath.Join(parent, "outside")

	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Mkdir(outside, 0o700))
	require.NoError(t, os.Symlink("x", filepath.Join(outside, "link")))
	require.NoError(t, os.Symlink("../outside", filepath.Join(dir, "leads-out")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))

	volume, err := os.Open(dir)
	require.NoError(t, err)

	defer volume.Close()

	for _, path := range []string{
		"", ".", "..", "/", "../outside/link", "leads-out/link", filepath.Join(outside, "link"), "file", "folder", "folder/../file", "gone", "gone/link", "file/link", "a\x00b",
	} {
		_, err := setLinks(t.Context(), volume, false, list(engine.LinkAttributes{Path: []byte(path), UID: 7, GID: 7, ModTime: time.Unix(1, 0)}))
		require.Error(t, err, "%q", path)
		assert.Equal(t, engine.CodeTargetUnwritable, engine.CodeOf(err), "%q", path)
	}

	for _, path := range []string{filepath.Join(outside, "link"), filepath.Join(dir, "leads-out"), filepath.Join(dir, "file"), filepath.Join(dir, "folder"), outside} {
		owner, _ := linkAt(t, path)
		assert.Zero(t, owner, path)
	}
}
