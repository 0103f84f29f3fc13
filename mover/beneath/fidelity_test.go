package beneath_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

// nastyTree makes all that a volume may hold, and returns the paths of what isn't
// a directory, regular file or link.
func nastyTree(t *testing.T, top string) []string {
	t.Helper()
	for _, name := range []string{
		"plain", "new\nline", "control\x01\x1b[31m", "invalid\xff", "invalid\xfe", "\xc3\x28", " lead", "trail ", "quo\"te'",
		"-rf", "back\\slash", "...", ".hidden", "nfc-\u00e9", "nfd-e\u0301", "CACHEDIR.TAG", ".kopiaignore", "x.kopia-entry", strings.Repeat("n", 255),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(top, name), []byte("content of "+name), 0o640))
	}
	require.NoError(t, os.WriteFile(filepath.Join(top, "empty"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(top, "big"), make([]byte, 3<<20+17), 0o600))
	makeModes(t, top)
	makeTimes(t, top)
	makeLinks(t, top)
	makeDeep(t, filepath.Join(top, "deep"))
	return makeSpecial(t, top)
}

func makeModes(t *testing.T, top string) {
	t.Helper()
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2755, "sticky": 0o1644, "all": 0o7777, "none": 0} {
		file, dir := filepath.Join(top, "mode-"+name), filepath.Join(top, "modedir-"+name)
		require.NoError(t, os.WriteFile(file, []byte(name), 0o600))
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "inner"), []byte(name), 0o600))
		for _, path := range []string{file, dir} {
			require.NoError(t, os.Lchown(path, 4294967294, 4294967293))
			require.NoError(t, unix.Chmod(path, mode))
		}
	}
}

func makeTimes(t *testing.T, top string) {
	t.Helper()
	for name, when := range map[string]time.Time{
		"negative": time.Unix(-86400*365, 123456789), "before-2038": time.Unix(1<<31-1, 999999999),
		"after-2038": time.Unix(1<<31+5, 1), "year-2262": time.Date(2262, 4, 12, 0, 0, 0, 5, time.UTC), "year-2400": time.Date(2400, 1, 1, 0, 0, 0, 7, time.UTC),
	} {
		for _, path := range []string{filepath.Join(top, "time-"+name), filepath.Join(top, "timedir-"+name), filepath.Join(top, "timelink-"+name)} {
			switch {
			case strings.Contains(path, "timedir-"):
				require.NoError(t, os.Mkdir(path, 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(path, "inner"), nil, 0o600))
			case strings.Contains(path, "timelink-"):
				require.NoError(t, os.Symlink("nowhere", path))
			default:
				require.NoError(t, os.WriteFile(path, nil, 0o600))
			}
			ts := unix.Timespec{Sec: when.Unix(), Nsec: int64(when.Nanosecond())}
			require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
}

func makeLinks(t *testing.T, top string) {
	t.Helper()
	for name, target := range map[string]string{
		"dangling": "does/not/exist", "self": "link-self", "loop-a": "link-loop-b", "loop-b": "link-loop-a", "up": "../../..",
		"absolute": "/etc/passwd", "raw": "target\xff\xfe\n", "long": strings.Repeat("t/", 2000), "dir": "deep",
	} {
		path := filepath.Join(top, "link-"+name)
		require.NoError(t, os.Symlink(target, path))
		require.NoError(t, os.Lchown(path, 3000000000, 12))
	}
	require.NoError(t, os.Link(filepath.Join(top, "plain"), filepath.Join(top, "hard")))
}

// makeDeep makes a path of 6,000 bytes: no call takes that at once.
func makeDeep(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.Mkdir(path, 0o755))
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	for range 60 {
		name := strings.Repeat("d", 99)
		require.NoError(t, unix.Mkdirat(fd, name, 0o755))
		sub, err := unix.Openat(fd, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(fd))
		fd = sub
	}
	bottom, err := unix.Openat(fd, "bottom", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	require.NoError(t, err)
	_, err = unix.Write(bottom, []byte("deep down"))
	require.NoError(t, err)
	require.NoError(t, unix.Close(bottom))
	require.NoError(t, unix.Close(fd))
}

func makeSpecial(t *testing.T, top string) []string {
	t.Helper()
	dir := filepath.Join(top, "special")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	require.NoError(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	require.NoError(t, unix.Mknod(filepath.Join(dir, "whiteout"), unix.S_IFCHR, 0))
	require.NoError(t, unix.Mknod(filepath.Join(dir, "disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unix"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, socket.Close()) })
	return []string{"special/disk", "special/fifo", "special/null", "special/socket", "special/whiteout"}
}

func TestACopyIsExact(t *testing.T) {
	needRoot(t)
	source := t.TempDir()
	special := nastyTree(t, source)
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			for name, prepare := range map[string]func(t *testing.T, top string){
				"into an empty folder":       func(*testing.T, string) {},
				"over things of other kinds": plantConflicts,
				"over an earlier copy with another owner": func(t *testing.T, top string) {
					t.Helper()
					copyWithOwner(t, source, top, o)
				},
			} {
				t.Run(name, func(t *testing.T) {
					target := t.TempDir()
					prepare(t, target)
					from, to := openRoot(t, source, o), openRoot(t, target, o)
					require.Equal(t, !o.NoOpenat2 && os.Getenv(olderKernel) == "", from.Openat2())
					require.Equal(t, special, copyTree(t, from.Dir(), to.Dir(), ""))
					require.NoError(t, to.Sync())

					want := inventory(t, source)
					for _, path := range special {
						delete(want, path)
					}
					require.Equal(t, want, inventory(t, target))
				})
			}
		})
	}
}

// plantConflicts puts something else under many of the names.
func plantConflicts(t *testing.T, top string) {
	t.Helper()
	outside := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(top, "plain", "full", "of"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(top, "plain", "full", "of", "files"), nil, 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(top, "link-self", "sub"), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(top, "deep")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "made"), filepath.Join(top, "big")))
	require.NoError(t, unix.Mkfifo(filepath.Join(top, "special"), 0o600))
	require.NoError(t, unix.Mknod(filepath.Join(top, "empty"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	require.NoError(t, os.WriteFile(filepath.Join(top, "link-up"), []byte("in the way"), 0o600))
	t.Cleanup(func() { require.Empty(t, inventory(t, outside)) })
}

func copyWithOwner(t *testing.T, source, target string, o beneath.Options) {
	t.Helper()
	copyTree(t, openRoot(t, source, o).Dir(), openRoot(t, target, o).Dir(), "")
	require.NoError(t, filepath.WalkDir(target, func(path string, _ os.DirEntry, err error) error {
		if err != nil || len(path) > 1000 {
			return filepath.SkipDir
		}
		return os.Lchown(path, 77, 78)
	}))
}

func TestAnEntryTellsWhatIsThere(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	nastyTree(t, top)
	sparse, err := os.Create(filepath.Join(top, "sparse"))
	require.NoError(t, err)
	require.NoError(t, sparse.Truncate(8<<20))
	require.NoError(t, sparse.Close())
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			root := openRoot(t, top, o)
			found := list(t, root.Dir())
			require.EqualValues(t, 0o4755, found["mode-setuid"].Mode)
			require.EqualValues(t, 4294967294, found["mode-setuid"].UID)
			require.EqualValues(t, 4294967293, found["mode-setuid"].GID)
			require.EqualValues(t, 0o7777, found["modedir-all"].Mode)
			require.EqualValues(t, 2, found["plain"].Nlink)
			require.True(t, found["plain"].Same(found["hard"]))
			require.False(t, found["plain"].Same(found["empty"]))
			require.True(t, found["sparse"].Sparse())
			require.False(t, found["big"].Sparse())
			require.Equal(t, int64(3<<20+17), found["big"].Size)
			require.True(t, time.Unix(-86400*365, 123456789).Equal(found["time-negative"].ModTime))

			special, err := root.Dir().OpenDir(found["special"])
			require.NoError(t, err)
			defer special.Close()
			kinds := list(t, special)
			require.Equal(t, beneath.KindFIFO, kinds["fifo"].Kind)
			require.Equal(t, beneath.KindSocket, kinds["socket"].Kind)
			require.Equal(t, beneath.KindCharDevice, kinds["null"].Kind)
			require.Equal(t, unix.Mkdev(1, 3), kinds["null"].Rdev)
			require.Equal(t, beneath.KindBlockDevice, kinds["disk"].Kind)
			require.Equal(t, unix.Mkdev(259, 70000), kinds["disk"].Rdev)
			for _, e := range kinds {
				require.False(t, e.MountPoint)
				_, err := special.OpenFile(e)
				require.ErrorIs(t, err, beneath.ErrKind)
			}
		})
	}
}

func TestTheRootKeepsItsAttributes(t *testing.T) {
	needRoot(t)
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			top := t.TempDir()
			root := openRoot(t, top, o)
			want := beneath.Attrs{UID: 4294967294, GID: 7, Mode: 0o3751, ModTime: time.Unix(-5, 17), AccessTime: time.Unix(99, 3)}
			write(t, root.Dir(), "child", "x", beneath.Attrs{})
			require.NoError(t, root.Dir().SetAttrs(want))
			got, err := root.Dir().Stat()
			require.NoError(t, err)
			require.Equal(t, beneath.KindDirectory, got.Kind)
			require.Equal(t, beneath.Attrs{UID: want.UID, GID: want.GID, Mode: want.Mode, ModTime: want.ModTime}, attrsOf(got))
			require.NoError(t, root.Dir().Close())
			require.Equal(t, "x", read(t, root.Dir(), "child"), "closing the root's directory must do nothing")
		})
	}
}
