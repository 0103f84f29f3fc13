package tree_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// small makes the same small tree each time.
func small(t *testing.T) string {
	t.Helper()

	dir := t.TempDir()
	at := time.Unix(1_600_000_000, 123)

	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d/f"), []byte("content"), 0o644))
	require.NoError(t, os.Symlink("target", filepath.Join(dir, "d/l")))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "d/f"), at, at))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "d"), at, at))
	require.NoError(t, os.Chtimes(dir, at, at))

	return dir
}

func TestEachKindOfDifferenceIsSeen(t *testing.T) {
	keepTime := func(t *testing.T, dir string, change func(path string)) {
		t.Helper()

		path := filepath.Join(dir, "d/f")
		info, err := os.Stat(path)
		require.NoError(t, err)
		change(path)
		require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	}

	for name, test := range map[string]struct {
		change func(t *testing.T, dir string)
		want   tree.Attribute
	}{
		"content of the same size and time": {func(t *testing.T, dir string) {
			t.Helper()
			keepTime(t, dir, func(p string) { require.NoError(t, os.WriteFile(p, []byte("CONTENT"), 0o644)) })
		}, tree.Content},
		"mode": {func(t *testing.T, dir string) {
			t.Helper()
			require.NoError(t, os.Chmod(filepath.Join(dir, "d/f"), 0o640))
		}, tree.Mode},
		"a nanosecond": {func(t *testing.T, dir string) {
			t.Helper()
			require.NoError(t, os.Chtimes(filepath.Join(dir, "d"), time.Unix(1_600_000_000, 124), time.Unix(1_600_000_000, 124)))
		}, tree.ModTime},
		"presence": {func(t *testing.T, dir string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(dir, "d/f")))
		}, tree.Presence},
		"type": {func(t *testing.T, dir string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(dir, "d/f")))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "d/f"), 0o755))
		}, tree.Type},
		"target": {func(t *testing.T, dir string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(dir, "d/l")))
			require.NoError(t, os.Symlink("tarGet", filepath.Join(dir, "d/l")))
		}, tree.LinkTarget},
	} {
		t.Run(name, func(t *testing.T) {
			want, got := small(t), small(t)
			test.change(t, got)

			// Removing changes the times around it, and a new link has its own.
			options := []tree.Option{}
			if test.want != tree.ModTime {
				options = append(options, tree.Without(tree.ModTime))
			}

			if test.want == tree.ModTime {
				options = append(options, tree.Skip(func(p string) bool { return p == "d/l" }))
			}

			diff, err := tree.Compare(want, got, options...)
			require.NoError(t, err)
			require.Len(t, diff, 1)
			assert.Equal(t, test.want, diff[0].Attribute)
			assert.NotEmpty(t, diff[0].String())
		})
	}
}

func TestOwnersAreCompared(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("owners can be set by root only")
	}

	want, got := small(t), small(t)
	require.NoError(t, os.Lchown(filepath.Join(got, "d/l"), 1, 2))

	diff, err := tree.Compare(want, got, tree.Without(tree.ModTime))
	require.NoError(t, err)
	require.Len(t, diff, 1)
	assert.Equal(t, tree.Owner, diff[0].Attribute)
}

func TestNamesOfOneFileAreToldFromCopies(t *testing.T) {
	want, copies, mixed := small(t), small(t), small(t)

	for _, dir := range []string{want, copies, mixed} {
		for _, name := range []string{"a", "b", "c", "d2"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		}
	}

	link := func(dir, name, as string) {
		require.NoError(t, os.Remove(filepath.Join(dir, as)))
		require.NoError(t, os.Link(filepath.Join(dir, name), filepath.Join(dir, as)))
	}

	link(want, "a", "b")
	link(want, "c", "d2")
	link(mixed, "a", "c")
	link(mixed, "b", "d2")

	for _, got := range []string{copies, mixed} {
		diff, err := tree.Compare(want, got, tree.Without(tree.ModTime))
		require.NoError(t, err)
		require.Len(t, diff, 4)

		for _, d := range diff {
			assert.Equal(t, tree.HardLinks, d.Attribute)
		}
	}

	diff, err := tree.Compare(want, want)
	require.NoError(t, err)
	assert.Empty(t, diff)
}

func TestTheSameTreeHasNoDifference(t *testing.T) {
	dir := small(t)
	diff, err := tree.Compare(dir, dir)
	require.NoError(t, err)
	assert.Empty(t, diff)
}

func TestTheNastyTreeIsTheSameEachTime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("owners can be set by root only")
	}

	a, b := t.TempDir(), t.TempDir()
	require.NoError(t, tree.Nasty(a))
	require.NoError(t, tree.Nasty(b))

	diff, err := tree.Compare(a, b, tree.Without(tree.ModTime))
	require.NoError(t, err)
	assert.Empty(t, diff)
}
