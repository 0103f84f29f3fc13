package beneath_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

func TestAFileAppearsWholeOrNotAtAll(t *testing.T) {
	attrs := beneath.Attrs{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mode: 0o640, ModTime: time.Unix(7, 7)}
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			top := t.TempDir()
			dir := openRoot(t, top, o).Dir()
			write(t, dir, "old", "old content", attrs)

			for _, name := range []string{"old", "new"} {
				f, err := dir.CreateFile(name, 0)
				require.NoError(t, err)
				_, err = f.Write([]byte("half"))
				require.NoError(t, err)
				require.NoError(t, f.Abort())
				require.NoError(t, f.Abort())
				_, err = f.Write([]byte("more"))
				require.ErrorIs(t, err, os.ErrClosed)
				require.ErrorIs(t, f.Commit(attrs), os.ErrClosed)
			}
			require.Len(t, list(t, dir), 1)
			require.Equal(t, "old content", read(t, dir, "old"))

			f, err := dir.CreateFile("old", 0)
			require.NoError(t, err)
			_, err = f.Write([]byte("new"))
			require.NoError(t, err)
			require.Equal(t, "old content", read(t, dir, "old"))
			require.NoError(t, f.Commit(attrs))
			require.NoError(t, f.Abort())
			require.Equal(t, "new", read(t, dir, "old"))
			require.Len(t, list(t, dir), 1)
		})
	}
}

func TestPiecesAreWrittenAnywhere(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			dir := openRoot(t, t.TempDir(), o).Dir()
			f, err := dir.CreateFile("f", 4<<20)
			require.NoError(t, err)
			defer f.Abort()
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() { _, _ = f.WriteAt([]byte(strings.Repeat(string(rune('a'+i)), 1000)), int64(i)*100_000) })
			}
			all.Wait()
			require.NoError(t, f.Truncate(2<<20))
			require.NoError(t, f.Commit(beneath.Attrs{Mode: 0o600}))

			e := lookup(t, dir, "f")
			require.Equal(t, int64(2<<20), e.Size)
			require.LessOrEqual(t, e.Blocks*512, int64(2<<20), "what was allocated beyond the end is given back")
			content := read(t, dir, "f")
			for i := range 8 {
				require.Equal(t, strings.Repeat(string(rune('a'+i)), 1000), content[i*100_000:i*100_000+1000])
			}
		})
	}
}

func TestLeftoversOfAKilledRunAreSwept(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			o.NoTmpfile = true
			top := t.TempDir()
			killed := openRoot(t, top, o).Dir()
			for range 3 {
				_, err := killed.CreateFile("f", 0) // Never committed, never aborted.
				require.NoError(t, err)
			}
			for _, name := range []string{"keep", ".estiba-tmp-", ".estiba-tmp-0123456789abcdef", ".estiba-tmp-0123456789ABCDEF-1", ".estiba-tmp-0123456789abcdef-1.x"} {
				require.False(t, beneath.IsTempName(name))
				require.NoError(t, os.WriteFile(filepath.Join(top, name), nil, 0o600))
			}
			require.NoError(t, os.Mkdir(filepath.Join(top, ".estiba-tmp-0123456789abcdef-7"), 0o755))
			require.NoError(t, os.Symlink("x", filepath.Join(top, ".estiba-tmp-0123456789abcdef-8")))

			dir := openRoot(t, top, o).Dir()
			own, err := dir.CreateFile("own", 0)
			require.NoError(t, err)
			count, err := dir.SweepTemps()
			require.NoError(t, err)
			require.Equal(t, 4, count)
			require.NoError(t, own.Commit(beneath.Attrs{}))
			require.Len(t, list(t, dir), 7)
		})
	}
}

func TestRemoveAllStaysInside(t *testing.T) {
	needRoot(t)
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			top, outside := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(outside, "f"), []byte("x"), 0o600))
			sub := filepath.Join(top, "sub")
			require.NoError(t, os.Mkdir(sub, 0o755))
			nastyTree(t, sub)
			require.NoError(t, os.Symlink(outside, filepath.Join(sub, "deep", "out")))
			require.NoError(t, os.Symlink(outside, filepath.Join(top, "link")))
			dir := openRoot(t, top, o).Dir()
			for _, name := range []string{"sub", "link", "absent"} {
				require.NoError(t, dir.RemoveAll(name))
			}
			require.Empty(t, list(t, dir))
			require.Len(t, inventory(t, outside), 1)
		})
	}
}

func TestSetuidSurvivesAnotherOwner(t *testing.T) {
	needRoot(t)
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			dir := openRoot(t, t.TempDir(), o).Dir()
			for _, owner := range []uint32{0, 12345, 4294967294} {
				a := beneath.Attrs{UID: owner, GID: owner, Mode: 0o6755, ModTime: time.Unix(1, 1)}
				write(t, dir, "f", "x", a)
				e := lookup(t, dir, "f")
				require.Equal(t, a, attrsOf(e))
			}
			f, err := dir.CreateFile("nobody", 0)
			require.NoError(t, err)
			defer f.Abort()
			require.ErrorIs(t, f.Commit(beneath.Attrs{UID: 4294967295}), beneath.ErrAttrs)
			require.ErrorIs(t, f.Commit(beneath.Attrs{GID: 4294967295}), beneath.ErrAttrs)
			require.NoError(t, f.Commit(beneath.Attrs{}))
		})
	}
}

func TestLinksWithBadTargetsAreRefused(t *testing.T) {
	dir := openRoot(t, t.TempDir(), beneath.Options{}).Dir()
	require.ErrorIs(t, dir.MakeSymlink("l", "", beneath.Attrs{}), unix.EINVAL)
	require.ErrorIs(t, dir.MakeSymlink("l", "a\x00b", beneath.Attrs{}), unix.EINVAL)
	require.ErrorIs(t, dir.MakeSymlink("l", strings.Repeat("x", 5000), beneath.Attrs{}), unix.ENAMETOOLONG)
	require.Empty(t, list(t, dir))
}

func TestAFolderRemovedMeanwhileIsSaid(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			top := t.TempDir()
			root := openRoot(t, top, o).Dir()
			dir, err := root.MakeDir("sub")
			require.NoError(t, err)
			defer dir.Close()
			f, err := dir.CreateFile("f", 0)
			require.NoError(t, err)
			require.NoError(t, os.RemoveAll(filepath.Join(top, "sub")))
			require.ErrorIs(t, f.Commit(beneath.Attrs{}), beneath.ErrVanished)
			require.NoError(t, f.Abort())
			_, err = dir.CreateFile("g", 0)
			require.ErrorIs(t, err, beneath.ErrVanished)
			_, err = dir.MakeDir("d")
			require.ErrorIs(t, err, beneath.ErrVanished)
			require.ErrorIs(t, dir.MakeSymlink("l", "x", beneath.Attrs{}), beneath.ErrVanished)
			require.NoError(t, dir.RemoveAll("g"))
			require.Empty(t, list(t, dir))
		})
	}
}

// withCapabilities runs f with no others than these, on one thread.
func withCapabilities(t *testing.T, keep []int, f func()) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before, now [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &before[0]))
	now = before
	now[0].Effective, now[1].Effective = 0, 0
	for _, c := range keep {
		now[c/32].Effective |= 1 << (c % 32)
	}
	now[0].Effective &= before[0].Permitted
	now[1].Effective &= before[1].Permitted
	require.NoError(t, unix.Capset(&header, &now[0]))
	defer func() { require.NoError(t, unix.Capset(&header, &before[0])) }()
	f()
}

func TestAMissingCapabilityIsAnError(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			dir := openRoot(t, t.TempDir(), o).Dir()
			withCapabilities(t, nil, func() {
				for _, a := range []beneath.Attrs{{UID: 1}, {GID: 1}} {
					f, err := dir.CreateFile("f", 0)
					require.NoError(t, err)
					require.ErrorIs(t, f.Commit(a), unix.EPERM)
					require.NoError(t, f.Abort())
					require.ErrorIs(t, dir.MakeSymlink("l", "x", a), unix.EPERM)
					require.ErrorIs(t, dir.SetAttrs(a), unix.EPERM)
				}
			})
			require.Empty(t, list(t, dir))
			// The kernel takes this mode, and drops the bit.
			withCapabilities(t, []int{unix.CAP_CHOWN, unix.CAP_FOWNER}, func() {
				f, err := dir.CreateFile("f", 0)
				require.NoError(t, err)
				require.ErrorIs(t, f.Commit(beneath.Attrs{GID: 4242, Mode: 0o2755}), beneath.ErrAttrs)
				require.NoError(t, f.Abort())
				require.ErrorIs(t, dir.SetAttrs(beneath.Attrs{GID: 4242, Mode: 0o2755}), beneath.ErrAttrs)
			})
		})
	}
}

func TestTheCapabilitiesOfAWorkerSuffice(t *testing.T) {
	needRoot(t)
	source := t.TempDir()
	special := nastyTree(t, source)
	want := inventory(t, source)
	for _, path := range special {
		delete(want, path)
	}
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			target := t.TempDir()
			from, to := openRoot(t, source, o), openRoot(t, target, o)
			t.Run("DAC_OVERRIDE reads everything", func(t *testing.T) {
				withCapabilities(t, []int{unix.CAP_DAC_OVERRIDE}, func() { readTree(t, from.Dir()) })
			})
			t.Run("those of a restore write everything, without DAC_READ_SEARCH", func(t *testing.T) {
				caps := []int{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_SETFCAP, unix.CAP_MKNOD}
				withCapabilities(t, caps, func() { copyTree(t, from.Dir(), to.Dir(), "") })
				require.Equal(t, want, inventory(t, target))
			})
		})
	}
}

func readTree(t *testing.T, d *beneath.Dir) {
	t.Helper()
	for name, e := range list(t, d) {
		switch e.Kind {
		case beneath.KindDirectory:
			sub, err := d.OpenDir(e)
			require.NoError(t, err)
			readTree(t, sub)
			require.NoError(t, sub.Close())
		case beneath.KindRegular:
			require.Len(t, read(t, d, name), int(e.Size))
		case beneath.KindSymlink:
			_, err := d.ReadLink(e)
			require.NoError(t, err)
		default:
		}
	}
}

func TestAFullVolumeIsSaidAndLeavesNothingHalf(t *testing.T) {
	mount := loopMount(t, 8)
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			f, err := os.Open(mount)
			require.NoError(t, err)
			defer f.Close()
			root, err := beneath.Open(f, o)
			require.NoError(t, err)
			defer root.Close()
			dir := root.Dir()
			write(t, dir, "old", "old content", beneath.Attrs{Mode: 0o600})
			before, err := root.Statfs()
			require.NoError(t, err)
			require.Less(t, before.FreeBytes, int64(8<<20))
			require.Positive(t, before.AvailableBytes)
			require.Positive(t, before.FreeInodes)

			_, err = dir.CreateFile("old", 64<<20)
			require.ErrorIs(t, err, unix.ENOSPC, "a size that has no room is refused beforehand")

			out, err := dir.CreateFile("old", 0)
			require.NoError(t, err)
			block := make([]byte, 1<<20)
			for err == nil {
				_, err = out.Write(block)
			}
			require.ErrorIs(t, err, unix.ENOSPC)
			require.NoError(t, out.Abort())

			require.Equal(t, "old content", read(t, dir, "old"))
			require.Len(t, list(t, dir), 2, "lost+found and the old file")
			require.NoError(t, root.Sync())
			after, err := root.Statfs()
			require.NoError(t, err)
			require.GreaterOrEqual(t, after.FreeBytes, before.FreeBytes)
		})
	}
}
