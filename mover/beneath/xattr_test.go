package beneath_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

func TestAttributesAreNamed(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	many := make([]string, 0, 40)
	for i := range cap(many) {
		many = append(many, fmt.Sprintf("user.attribute-%02d", i))
	}
	for path, names := range map[string][]string{
		dir: {"user.root"}, outside: {"user.outside"}, filepath.Join(dir, "plain"): nil,
		filepath.Join(dir, "one"): {"user.one"}, filepath.Join(dir, "many"): many, filepath.Join(dir, "folder"): {"user.folder"},
	} {
		if filepath.Base(path) == "folder" {
			require.NoError(t, os.Mkdir(path, 0o700))
		} else if path != dir {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
		}
		for _, name := range names {
			require.NoError(t, unix.Setxattr(path, name, []byte("x"), 0))
		}
	}
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	root, err := beneath.Open(f, beneath.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() })

	for name, want := range map[string][]string{
		"": {"user.root"}, "plain": nil, "one": {"user.one"}, "many": many, "folder": {"user.folder"}, "link": nil, "gone": nil,
	} {
		got, err := root.Dir().Attributes(name)
		require.NoError(t, err)
		assert.ElementsMatch(t, want, own(got), name)
	}
	for _, name := range []string{"..", ".", "a/b", "folder/"} {
		_, err := root.Dir().Attributes(name)
		require.Error(t, err, name)
	}
}

// own leaves out what the machine's security module may have added.
func own(names []string) []string {
	var users []string
	for _, n := range names {
		if n != "security.selinux" {
			users = append(users, n)
		}
	}
	return users
}
