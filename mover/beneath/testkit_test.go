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

func openRoot(tb testing.TB, path string, o beneath.Options) *beneath.Root {
	tb.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(tb, err)
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	root, err := beneath.Open(f, o)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, root.Close()) })
	if os.Getenv(olderKernel) != "" {
		require.False(tb, root.Openat2(), "openat2 is hidden, and was not missed")
	}
	return root
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: owners, devices and mounts are made")
	}
}

func list(tb testing.TB, d *beneath.Dir) map[string]beneath.Entry {
	tb.Helper()
	found := map[string]beneath.Entry{}
	l, err := d.List()
	require.NoError(tb, err)
	defer l.Close()
	for {
		entries, err := l.Next(7)
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(tb, err)
		require.NotEmpty(tb, entries)
		require.LessOrEqual(tb, len(entries), 7)
		for _, e := range entries {
			require.NotContains(tb, found, e.Name)
			found[e.Name] = e
		}
	}
}

func lookup(tb testing.TB, d *beneath.Dir, name string) beneath.Entry {
	tb.Helper()
	e, err := d.Lookup(name)
	require.NoError(tb, err)
	return e
}

func read(tb testing.TB, d *beneath.Dir, name string) string {
	tb.Helper()
	f, err := d.OpenFile(lookup(tb, d, name))
	require.NoError(tb, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	require.NoError(tb, err)
	return string(b)
}

func write(tb testing.TB, d *beneath.Dir, name, content string, a beneath.Attrs) {
	tb.Helper()
	f, err := d.CreateFile(name, int64(len(content)))
	require.NoError(tb, err)
	defer f.Abort()
	_, err = f.Write([]byte(content))
	require.NoError(tb, err)
	require.NoError(tb, f.Commit(a))
}

func attrsOf(e beneath.Entry) beneath.Attrs {
	return beneath.Attrs{UID: e.UID, GID: e.GID, Mode: e.Mode, ModTime: e.ModTime}
}

// copyTree copies src to dst with the package's own two sides, and returns the
// paths of what has no side to be written with.
func copyTree(tb testing.TB, src, dst *beneath.Dir, path string) (left []string) {
	tb.Helper()
	for name, e := range list(tb, src) {
		require.NoError(tb, e.Err)
		switch e.Kind {
		case beneath.KindDirectory:
			from, err := src.OpenDir(e)
			require.NoError(tb, err)
			to, err := dst.MakeDir(name)
			require.NoError(tb, err)
			left = append(left, copyTree(tb, from, to, path+name+"/")...)
			require.NoError(tb, to.SetAttrs(attrsOf(e)))
			require.NoError(tb, errors.Join(from.Close(), to.Close()))
		case beneath.KindRegular:
			copyFile(tb, src, dst, e)
		case beneath.KindSymlink:
			target, err := src.ReadLink(e)
			require.NoError(tb, err)
			require.NoError(tb, dst.MakeSymlink(name, target, attrsOf(e)))
		default:
			left = append(left, path+name)
		}
	}
	sort.Strings(left)
	return left
}

func copyFile(tb testing.TB, src, dst *beneath.Dir, e beneath.Entry) {
	tb.Helper()
	in, err := src.OpenFile(e)
	require.NoError(tb, err)
	defer in.Close()
	out, err := dst.CreateFile(e.Name, e.Size)
	require.NoError(tb, err)
	defer out.Abort()
	_, err = io.Copy(out, in)
	require.NoError(tb, err)
	changed, err := in.Changed()
	require.NoError(tb, err)
	require.False(tb, changed)
	require.NoError(tb, out.Commit(attrsOf(e)))
}

// inventory returns everything about a tree that a copy is to keep, by means other
// than the package's: path -> description.
func inventory(tb testing.TB, path string) map[string]string {
	tb.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(tb, err)
	found := map[string]string{}
	takeInventory(tb, fd, "", found)
	return found
}

func takeInventory(tb testing.TB, fd int, path string, found map[string]string) {
	tb.Helper()
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	require.NoError(tb, err)
	for _, name := range names {
		var st unix.Stat_t
		require.NoError(tb, unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW))
		line := fmt.Sprintf("mode=%o owner=%d:%d mtime=%d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			require.NoError(tb, err)
			takeInventory(tb, sub, path+name+"/", found)
		case unix.S_IFREG:
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			require.NoError(tb, err)
			in := os.NewFile(uintptr(sub), name)
			sum := sha256.New()
			n, err := io.Copy(sum, in)
			require.NoError(tb, err)
			require.NoError(tb, in.Close())
			line += fmt.Sprintf(" size=%d sha=%x", n, sum.Sum(nil))
		case unix.S_IFLNK:
			buf := make([]byte, 5000)
			n, err := unix.Readlinkat(fd, name, buf)
			require.NoError(tb, err)
			line += fmt.Sprintf(" target=%q", buf[:n])
		}
		found[path+name] = line
	}
}

// loopMount mounts a new ext4 of the size in MiB, or skips the test.
func loopMount(tb testing.TB, mib int) string {
	tb.Helper()
	needRoot(tb)
	dir := tb.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	require.NoError(tb, os.Mkdir(at, 0o755))
	require.NoError(tb, os.WriteFile(image, nil, 0o600))
	require.NoError(tb, os.Truncate(image, int64(mib)<<20))
	for _, cmd := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			tb.Skipf("loop mounts are not possible here: %s: %v: %s", strings.Join(cmd, " "), err, out)
		}
	}
	tb.Cleanup(func() {
		out, err := exec.Command("umount", at).CombinedOutput()
		require.NoError(tb, err, "an open descriptor was left behind: %s", out)
	})
	return at
}

// bindMount mounts what onto the existing at, or skips the test.
func bindMount(tb testing.TB, what, at string) {
	tb.Helper()
	needRoot(tb)
	if err := unix.Mount(what, at, "", unix.MS_BIND, ""); err != nil {
		tb.Skipf("bind mounts are not possible here: %v", err)
	}
	tb.Cleanup(func() { require.NoError(tb, unix.Unmount(at, 0), "an open descriptor was left behind") })
}
