package beneath_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

// modes are the surroundings that every promise is kept in.
func modes() map[string]beneath.Options {
	return map[string]beneath.Options{
		"with openat2":    {},
		"without openat2": {NoOpenat2: true},
		"with openat2, without mount IDs in statx and O_TMPFILE":    {NoStatxMountID: true, NoTmpfile: true},
		"without openat2, without mount IDs in statx and O_TMPFILE": {NoOpenat2: true, NoStatxMountID: true, NoTmpfile: true},
	}
}

func inEachMode(t *testing.T, test func(t *testing.T, o beneath.Options)) {
	t.Helper()
	for name, o := range modes() {
		t.Run(name, func(t *testing.T) { test(t, o) })
	}
}

func openRoot(t testing.TB, path string, o beneath.Options) *beneath.Root {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	root, err := beneath.Open(f, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	return root
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners, devices and mounts are made")
	}
}

func list(t testing.TB, d *beneath.Dir) map[string]beneath.Entry {
	t.Helper()
	found := map[string]beneath.Entry{}
	l, err := d.List()
	require.NoError(t, err)
	defer l.Close()
	for {
		entries, err := l.Next(7)
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		require.NotEmpty(t, entries)
		require.LessOrEqual(t, len(entries), 7)
		for _, e := range entries {
			require.NotContains(t, found, e.Name)
			found[e.Name] = e
		}
	}
}

func lookup(t testing.TB, d *beneath.Dir, name string) beneath.Entry {
	t.Helper()
	e, err := d.Lookup(name)
	require.NoError(t, err)
	return e
}

func read(t testing.TB, d *beneath.Dir, name string) string {
	t.Helper()
	f, err := d.OpenFile(lookup(t, d, name))
	require.NoError(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	return string(b)
}

func write(t testing.TB, d *beneath.Dir, name, content string, a beneath.Attrs) {
	t.Helper()
	f, err := d.CreateFile(name, int64(len(content)))
	require.NoError(t, err)
	defer f.Abort()
	_, err = f.Write([]byte(content))
	require.NoError(t, err)
	require.NoError(t, f.Commit(a))
}

func attrsOf(e beneath.Entry) beneath.Attrs {
	return beneath.Attrs{UID: e.UID, GID: e.GID, Mode: e.Mode, ModTime: e.ModTime}
}

// copyTree copies src to dst with the package's own two sides, and returns the
// paths of what has no side to be written with.
func copyTree(t testing.TB, src, dst *beneath.Dir, path string) (left []string) {
	t.Helper()
	for name, e := range list(t, src) {
		require.NoError(t, e.Err)
		switch e.Kind {
		case beneath.KindDirectory:
			from, err := src.OpenDir(e)
			require.NoError(t, err)
			to, err := dst.MakeDir(name)
			require.NoError(t, err)
			left = append(left, copyTree(t, from, to, path+name+"/")...)
			require.NoError(t, to.SetAttrs(attrsOf(e)))
			require.NoError(t, errors.Join(from.Close(), to.Close()))
		case beneath.KindRegular:
			copyFile(t, src, dst, e)
		case beneath.KindSymlink:
			target, err := src.ReadLink(e)
			require.NoError(t, err)
			require.NoError(t, dst.MakeSymlink(name, target, attrsOf(e)))
		default:
			left = append(left, path+name)
		}
	}
	sort.Strings(left)
	return left
}

func copyFile(t testing.TB, src, dst *beneath.Dir, e beneath.Entry) {
	t.Helper()
	in, err := src.OpenFile(e)
	require.NoError(t, err)
	defer in.Close()
	out, err := dst.CreateFile(e.Name, e.Size)
	require.NoError(t, err)
	defer out.Abort()
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	changed, err := in.Changed()
	require.NoError(t, err)
	require.False(t, changed)
	require.NoError(t, out.Commit(attrsOf(e)))
}

// inventory tells everything about a tree that a copy is to keep, by means other
// than the package's: path -> description.
func inventory(t testing.TB, path string) map[string]string {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	found := map[string]string{}
	takeInventory(t, fd, "", found)
	return found
}

func takeInventory(t testing.TB, fd int, path string, found map[string]string) {
	t.Helper()
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	require.NoError(t, err)
	for _, name := range names {
		var st unix.Stat_t
		require.NoError(t, unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW))
		line := fmt.Sprintf("mode=%o owner=%d:%d mtime=%d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			takeInventory(t, sub, path+name+"/", found)
		case unix.S_IFREG:
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			in := os.NewFile(uintptr(sub), name)
			sum := sha256.New()
			n, err := io.Copy(sum, in)
			require.NoError(t, err)
			require.NoError(t, in.Close())
			line += fmt.Sprintf(" size=%d sha=%x", n, sum.Sum(nil))
		case unix.S_IFLNK:
			buf := make([]byte, 5000)
			n, err := unix.Readlinkat(fd, name, buf)
			require.NoError(t, err)
			line += fmt.Sprintf(" target=%q", buf[:n])
		}
		found[path+name] = line
	}
}

// loopMount mounts a new ext4 of the size in MiB, or skips the test.
func loopMount(t testing.TB, mib int) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	require.NoError(t, os.Mkdir(at, 0o755))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, int64(mib)<<20))
	for _, cmd := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Skipf("loop mounts are not possible here: %s: %v: %s", strings.Join(cmd, " "), err, out)
		}
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", at).CombinedOutput()
		require.NoError(t, err, "an open descriptor was left behind: %s", out)
	})
	return at
}

// bindMount mounts what onto the existing at, or skips the test.
func bindMount(t testing.TB, what, at string) {
	t.Helper()
	needRoot(t)
	if err := unix.Mount(what, at, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("bind mounts are not possible here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, 0), "an open descriptor was left behind") })
}
