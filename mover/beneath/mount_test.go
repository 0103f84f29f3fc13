package beneath_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/beneath"
)

func TestMountsInsideAVolumeAreNeitherEnteredNorReplaced(t *testing.T) {
	needRoot(t)
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			top, outside := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
			require.NoError(t, os.MkdirAll(filepath.Join(top, "in", "dir"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(top, "in", "file"), nil, 0o644))
			bindMount(t, outside, filepath.Join(top, "in", "dir"))
			bindMount(t, filepath.Join(outside, "secret"), filepath.Join(top, "in", "file"))
			before := inventory(t, outside)

			root := openRoot(t, top, o).Dir()
			dir, err := root.OpenDir(lookup(t, root, "in"))
			require.NoError(t, err)
			defer dir.Close()
			for name, e := range list(t, dir) {
				require.Equal(t, !o.NoStatxMountID, e.MountPoint, name)
				for _, e.MountPoint = range []bool{true, false} {
					if e.Kind == beneath.KindDirectory {
						_, err = dir.OpenDir(e)
					} else {
						_, err = dir.OpenFile(e)
					}
					require.ErrorIs(t, err, beneath.ErrMountPoint, name)
				}
				_, err = dir.MakeDir(name)
				require.ErrorIs(t, err, beneath.ErrMountPoint, name)
				require.ErrorIs(t, dir.MakeSymlink(name, "x", beneath.Attrs{}), beneath.ErrMountPoint, name)
				f, err := dir.CreateFile(name, 0)
				require.NoError(t, err)
				require.ErrorIs(t, f.Commit(beneath.Attrs{}), beneath.ErrMountPoint, name)
				require.NoError(t, f.Abort())
				require.ErrorIs(t, dir.RemoveAll(name), beneath.ErrMountPoint, name)
			}
			require.ErrorIs(t, root.RemoveAll("in"), beneath.ErrMountPoint)
			require.Equal(t, before, inventory(t, outside))
			require.Len(t, list(t, dir), 2, "no temporary file may remain")
		})
	}
}

func TestTheRootMayBeAMountItself(t *testing.T) {
	needRoot(t)
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			top, at := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(top, "f"), []byte("x"), 0o644))
			bindMount(t, top, at)
			func() { // The root must be closed before the mount goes.
				fd, err := os.Open(at)
				require.NoError(t, err)
				defer fd.Close()
				root, err := beneath.Open(fd, o)
				require.NoError(t, err)
				defer root.Close()
				require.Equal(t, "x", read(t, root.Dir(), "f"))
				require.False(t, lookup(t, root.Dir(), "f").MountPoint)
			}()
		})
	}
}
