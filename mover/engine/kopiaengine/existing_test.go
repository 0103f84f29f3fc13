package kopiaengine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
)

// mirrored restores the job's snapshot as a mirror.
func mirrored(t *testing.T, e *kopiaengine.Engine, job, dir string) error {
	t.Helper()

	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, dir), Job: job, Existing: engine.ExistingMirror}, nil)

	return err
}

// small backs a small volume up, and returns it.
func small(t *testing.T) (e *kopiaengine.Engine, volume string) {
	t.Helper()
	needRoot(t)

	volume = t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(volume, "folder/inner"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(volume, "folder/file"), []byte("kept"), 0o600))

	e = newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	return e, volume
}

func TestAMirrorRemovesATreeAsDeepAsItsMakerLiked(t *testing.T) {
	e, volume := small(t)
	target := t.TempDir()

	const levels = 3000

	deep(t, filepath.Join(target, "deep"), levels)
	deep(t, filepath.Join(target, "folder"), levels)

	require.NoError(t, mirrored(t, e, "vb-1", target))
	requireSame(t, volume, target)
}

// deep makes a tree that no path leads to the end of.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o755))

	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)

	name := strings.Repeat("d", 100)

	for range levels {
		require.NoError(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(fd))

		fd = next
	}

	require.NoError(t, unix.Close(fd))
}

func TestAMirrorRemovesManyFilesWithNamesOfAllSorts(t *testing.T) {
	e, volume := small(t)
	target := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(target, "folder/inner"), 0o755))

	for i := range 3000 {
		require.NoError(t, os.WriteFile(filepath.Join(target, "folder/inner", fmt.Sprintf("%d-\xff\n\x1b", i)), nil, 0))
	}

	require.NoError(t, unix.Mkfifo(filepath.Join(target, "fifo"), 0o600))
	require.NoError(t, unix.Mknod(filepath.Join(target, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))

	require.NoError(t, mirrored(t, e, "vb-1", target))
	requireSame(t, volume, target)
}

func TestAMirrorNeverCrossesAMount(t *testing.T) {
	for name, at := range map[string]string{
		"beside what the snapshot has": "other",
		"below such a folder":          "other/below/it",
		"within what the snapshot has": "folder/other",
		"in the place of a file":       "folder/file",
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := small(t)
			target, foreign := t.TempDir(), tmpfs(t, "1m")
			precious := filepath.Join(foreign, "precious")
			require.NoError(t, os.WriteFile(precious, []byte("not the volume's"), 0o600))

			place := filepath.Join(target, at)
			require.NoError(t, os.MkdirAll(place, 0o755))
			require.NoError(t, unix.Mount(foreign, place, "", unix.MS_BIND, ""))
			t.Cleanup(func() { require.NoError(t, unix.Unmount(place, unix.MNT_DETACH)) })

			err := mirrored(t, e, "vb-1", target)
			requireCode(t, engine.CodeTargetUnwritable, err)
			require.ErrorContains(t, err, strings.Split(at, "/")[0])
			assert.FileExists(t, precious)
			assert.FileExists(t, filepath.Join(place, "precious"))
		})
	}
}

func TestAMirrorNamesWhatCannotBeRemoved(t *testing.T) {
	e, _ := small(t)
	target := t.TempDir()
	stuck := filepath.Join(target, "folder/tree/stuck")
	require.NoError(t, os.MkdirAll(filepath.Dir(stuck), 0o755))
	require.NoError(t, os.WriteFile(stuck, nil, 0o600))

	f, err := os.Open(stuck)
	require.NoError(t, err)

	defer func() { require.NoError(t, f.Close()) }()

	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, unix.STATX_ATTR_IMMUTABLE); err != nil {
		t.Skip("this file system has no immutable files:", err)
	}

	t.Cleanup(func() {
		f, err := os.Open(stuck)
		require.NoError(t, err)
		require.NoError(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0))
		require.NoError(t, f.Close())
	})

	err = mirrored(t, e, "vb-1", target)
	requireCode(t, engine.CodeTargetUnwritable, err)
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorContains(t, err, `"folder/tree"`)
	require.ErrorContains(t, err, `"stuck"`)
	require.ErrorContains(t, err, "lsattr")
}

func TestAMirrorRemovesNothingForAFolderThatCannotBeRead(t *testing.T) {
	needRoot(t)

	// The list is cut off after an entry: the others must not pass for extras.
	st := store(t, t.TempDir())
	e := newEngine(t, st)
	forge(t, st, "vb-1", `{"stream":"kopia:directory","entries":[{"name":"a","type":"f","mode":"0644","size":1,"obj":"FILE"}`)

	target := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(target, "b"), []byte("kept"), 0o600))

	requireCode(t, engine.CodeRepositoryDamaged, mirrored(t, e, "vb-1", target))
	assert.FileExists(t, filepath.Join(target, "b"))
}
