package beneath_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

// within fails the test if f takes longer than anything here may.
func within(t *testing.T, limit time.Duration, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		require.FailNow(t, "the call hangs")
		return nil
	}
}

func TestASwappedEntryIsNotOpened(t *testing.T) {
	needRoot(t)
	swaps := map[string]struct {
		swap func(t *testing.T, path, outside string)
		want error
	}{
		"nothing is there any more": {func(*testing.T, string, string) {}, beneath.ErrVanished},
		"a link to a file outside": {func(t *testing.T, path, outside string) {
			t.Helper()
			require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), path))
		}, beneath.ErrChanged},
		"a link to a folder outside": {func(t *testing.T, path, outside string) {
			t.Helper()
			require.NoError(t, os.Symlink(outside, path))
		}, beneath.ErrChanged},
		"a magic link": {func(t *testing.T, path, _ string) {
			t.Helper()
			require.NoError(t, os.Symlink("/proc/self/root/etc/hostname", path))
		}, beneath.ErrChanged},
		"another file": {func(t *testing.T, path, _ string) {
			t.Helper()
			require.NoError(t, os.WriteFile(path, []byte("other"), 0o600))
		}, beneath.ErrChanged},
		"another folder": {func(t *testing.T, path, _ string) {
			t.Helper()
			require.NoError(t, os.Mkdir(path, 0o755))
		}, beneath.ErrChanged},
		"a fifo that nobody writes to": {func(t *testing.T, path, _ string) {
			t.Helper()
			require.NoError(t, unix.Mkfifo(path, 0o644))
		}, beneath.ErrChanged},
		"a device": {func(t *testing.T, path, _ string) {
			t.Helper()
			require.NoError(t, unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
		}, beneath.ErrChanged},
		"a device without a driver": {func(t *testing.T, path, _ string) {
			t.Helper()
			require.NoError(t, unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(259, 70001))))
		}, beneath.ErrChanged},
		"a socket": {func(t *testing.T, path, _ string) {
			t.Helper()
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}, beneath.ErrChanged},
	}
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			for name, tc := range swaps {
				t.Run(name, func(t *testing.T) {
					top, outside := t.TempDir(), t.TempDir()
					require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
					require.NoError(t, os.WriteFile(filepath.Join(top, "file"), []byte("mine"), 0o644))
					require.NoError(t, os.Mkdir(filepath.Join(top, "dir"), 0o755))
					require.NoError(t, os.Symlink("target", filepath.Join(top, "link")))
					dir := openRoot(t, top, o).Dir()
					listed := list(t, dir)
					for entry := range listed {
						// Kept under another name, so that its inode isn't given out anew.
						require.NoError(t, os.Rename(filepath.Join(top, entry), filepath.Join(outside, entry)))
						tc.swap(t, filepath.Join(top, entry), outside)
					}
					for entry, open := range map[string]func() error{
						"file": func() error { _, err := dir.OpenFile(listed["file"]); return err },
						"dir":  func() error { _, err := dir.OpenDir(listed["dir"]); return err },
						"link": func() error { _, err := dir.ReadLink(listed["link"]); return err },
					} {
						require.ErrorIs(t, within(t, 10*time.Second, open), tc.want, entry)
					}
				})
			}
		})
	}
}

func TestNamesThatAreNoComponentsAreRefused(t *testing.T) {
	top := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(top, "sub"), 0o755))
	dir := openRoot(t, top, beneath.Options{}).Dir()
	before := inventory(t, filepath.Dir(top))
	for _, name := range []string{"", ".", "..", "/", "/etc", "sub/x", "sub/", "../x", "a\x00b"} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			e := beneath.Entry{Name: name, Kind: beneath.KindRegular}
			_, err := dir.OpenFile(e)
			require.ErrorIs(t, err, beneath.ErrName)
			e.Kind = beneath.KindDirectory
			_, err = dir.OpenDir(e)
			require.ErrorIs(t, err, beneath.ErrName)
			e.Kind = beneath.KindSymlink
			_, err = dir.ReadLink(e)
			require.ErrorIs(t, err, beneath.ErrName)
			_, err = dir.Lookup(name)
			require.ErrorIs(t, err, beneath.ErrName)
			_, err = dir.MakeDir(name)
			require.ErrorIs(t, err, beneath.ErrName)
			_, err = dir.CreateFile(name, 0)
			require.ErrorIs(t, err, beneath.ErrName)
			require.ErrorIs(t, dir.MakeSymlink(name, "x", beneath.Attrs{}), beneath.ErrName)
			require.ErrorIs(t, dir.RemoveAll(name), beneath.ErrName)
		})
	}
	require.Equal(t, before, inventory(t, filepath.Dir(top)))
}

func TestAFlatFolderIsListedInPiecesByManyAtOnce(t *testing.T) {
	const files = 20_000
	top := t.TempDir()
	for i := range files {
		require.NoError(t, os.WriteFile(filepath.Join(top, fmt.Sprintf("%0100d", i)), nil, 0o600))
	}
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			dir := openRoot(t, top, o).Dir()
			var all sync.WaitGroup
			counts := make([]map[string]bool, 4)
			for i := range counts {
				counts[i] = map[string]bool{}
				all.Go(func() {
					l, err := dir.List()
					if err != nil {
						return
					}
					defer l.Close()
					for {
						entries, err := l.Next(500)
						if err != nil {
							return
						}
						for _, e := range entries {
							counts[i][e.Name] = true
						}
					}
				})
			}
			all.Wait()
			for _, names := range counts {
				require.Len(t, names, files)
			}
		})
	}
}

func TestAFileTellsThatItChangedWhileRead(t *testing.T) {
	changes := map[string]func(t *testing.T, path string){
		"it grows": func(t *testing.T, path string) {
			t.Helper()
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteString("more")
			require.NoError(t, err)
			require.NoError(t, f.Close())
		},
		"it is written over with its old time set back": func(t *testing.T, path string) {
			t.Helper()
			st, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte("CONTENT"), 0o600))
			require.NoError(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
		},
		"it is truncated": func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Truncate(path, 1))
		},
	}
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			for name, change := range changes {
				t.Run(name, func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "f")
					require.NoError(t, os.WriteFile(path, []byte("content"), 0o600))
					old := time.Now().Add(-time.Hour)
					require.NoError(t, os.Chtimes(path, old, old))
					dir := openRoot(t, filepath.Dir(path), o).Dir()
					f, err := dir.OpenFile(lookup(t, dir, "f"))
					require.NoError(t, err)
					defer f.Close()
					changed, err := f.Changed()
					require.NoError(t, err)
					require.False(t, changed)
					waitForClockTick(t, path)
					change(t, path)
					changed, err = f.Changed()
					require.NoError(t, err)
					require.True(t, changed)
				})
			}
		})
	}
}

// waitForClockTick waits until a change gets another ctime than the file has: file
// systems stamp with the kernel's coarse clock.
func waitForClockTick(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	for {
		var now unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now))
		if now.Nano() > st.Ctim.Nano() {
			return
		}
	}
}

func TestAFileIsReadFromAnyPosition(t *testing.T) {
	top := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(top, "f"), []byte("0123456789"), 0o600))
	dir := openRoot(t, top, beneath.Options{}).Dir()
	f, err := dir.OpenFile(lookup(t, dir, "f"))
	require.NoError(t, err)
	require.Equal(t, "f", f.Entry().Name)
	for _, step := range []struct {
		offset int64
		whence int
		want   string
	}{{3, io.SeekStart, "34"}, {1, io.SeekCurrent, "67"}, {-2, io.SeekEnd, "89"}} {
		_, err := f.Seek(step.offset, step.whence)
		require.NoError(t, err)
		got := make([]byte, 2)
		_, err = io.ReadFull(f, got)
		require.NoError(t, err)
		require.Equal(t, step.want, string(got))
	}
	_, err = f.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	_, err = f.Seek(-1, io.SeekStart)
	require.Error(t, err)
	got := make([]byte, 20)
	n, err := f.ReadAt(got, 8)
	require.Equal(t, io.EOF, err)
	require.Equal(t, "89", string(got[:n]))
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	_, err = f.Read(got)
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestReadingLeavesTheAccessTime(t *testing.T) {
	top := t.TempDir()
	sub := filepath.Join(top, "sub")
	require.NoError(t, os.Mkdir(sub, 0o755))
	old := time.Unix(1_000_000_000, 0)
	accessTime := func(path string) time.Time {
		var st unix.Stat_t
		require.NoError(t, unix.Stat(path, &st))
		return time.Unix(st.Atim.Unix())
	}
	for _, name := range []string{"quiet", "loud"} {
		require.NoError(t, os.WriteFile(filepath.Join(sub, name), []byte("x"), 0o600))
		require.NoError(t, os.Chtimes(filepath.Join(sub, name), old, time.Now()))
	}
	require.NoError(t, os.Chtimes(sub, old, time.Now()))
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			root := openRoot(t, top, o).Dir()
			dir, err := root.OpenDir(lookup(t, root, "sub"))
			require.NoError(t, err)
			defer dir.Close()
			require.Len(t, list(t, dir), 2)
			require.Equal(t, "x", read(t, dir, "quiet"))
			require.True(t, accessTime(filepath.Join(sub, "quiet")).Equal(old))
			require.True(t, accessTime(sub).Equal(old))
		})
	}
	_, err := os.ReadFile(filepath.Join(sub, "loud"))
	require.NoError(t, err)
	if accessTime(filepath.Join(sub, "loud")).Equal(old) {
		t.Skip("this file system keeps no access times: nothing was proved")
	}
}

func TestCloseMayComeWhileOthersWork(t *testing.T) {
	top := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(top, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(top, "sub", "f"), []byte("x"), 0o600))
	root := openRoot(t, top, beneath.Options{}).Dir()
	for range 50 {
		dir, err := root.OpenDir(lookup(t, root, "sub"))
		require.NoError(t, err)
		e := lookup(t, dir, "f")
		var all sync.WaitGroup
		errs := make(chan error, 4)
		for range cap(errs) {
			all.Go(func() {
				for {
					f, err := dir.OpenFile(e)
					if err != nil {
						errs <- err
						return
					}
					_ = f.Close()
				}
			})
		}
		require.NoError(t, dir.Close())
		all.Wait()
		for range cap(errs) {
			require.ErrorIs(t, <-errs, os.ErrClosed)
		}
	}
}

func TestALeaseIsWaitedFor(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "leased")
			require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
			dir := openRoot(t, filepath.Dir(path), o).Dir()
			holder, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(holder)
			if _, err := unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, syscall.F_WRLCK); err != nil {
				t.Skipf("leases are not possible here: %v", err)
			}
			e := lookup(t, dir, "leased")
			done := make(chan error, 1)
			go func() {
				f, err := dir.OpenFile(e)
				if err == nil {
					err = f.Close()
				}
				done <- err
			}()
			// The lease tells that it is being broken; then the holder lets go.
			require.Eventually(t, func() bool {
				kind, err := unix.FcntlInt(uintptr(holder), unix.F_GETLEASE, 0)
				return err == nil && kind != syscall.F_WRLCK
			}, 10*time.Second, time.Millisecond)
			_, err = unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, syscall.F_UNLCK)
			require.NoError(t, err)
			require.NoError(t, within(t, 10*time.Second, func() error { return <-done }))
		})
	}
}

func TestOpenRefusesWhatIsNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	_, err = beneath.Open(f, beneath.Options{})
	require.ErrorIs(t, err, unix.ENOTDIR)
	_, err = beneath.Open(nil, beneath.Options{})
	require.ErrorIs(t, err, os.ErrInvalid)
}
