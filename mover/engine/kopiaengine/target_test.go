package kopiaengine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// tmpfs mounts a file system of a size.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)

	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("mounting is not allowed here:", err)
	}

	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })

	return dir
}

func TestAVolumeThatIsTooSmallIsLeftAsItWas(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 8, 1<<20)

	e := newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	target := tmpfs(t, "4m")
	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
	requireCode(t, engine.CodeTargetFull, err)
	require.ErrorContains(t, err, "needs 8388608 bytes, 4194304 are free")

	entries, err := os.ReadDir(target)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestAVolumeThatFillsUpOnTheWayIsNamedAndHoldsNoHalfFile(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 8, 1<<20)

	e := newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	// What is there makes the room doubtful; but it is in nobody's way, and stays.
	target := tmpfs(t, "12m")
	require.NoError(t, os.WriteFile(filepath.Join(target, "other"), make([]byte, 6<<20), 0o600))

	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Existing: engine.ExistingOverwrite}, nil)
	requireCode(t, engine.CodeTargetFull, err)
	require.ErrorContains(t, err, "needs 8388608 bytes")
	require.ErrorIs(t, err, unix.ENOSPC)

	require.NoError(t, filepath.WalkDir(target, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != "other" {
			info, err := d.Info()
			require.NoError(t, err)
			assert.EqualValues(t, 1<<20, info.Size(), path)
		}

		return err
	}))
}

func TestARestoreThatFitsOnlyOverWhatIsThereWorks(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 8, 1<<20)

	e := newEngine(t, store(t, t.TempDir()))
	backup(t, e, volume, "vb-1")

	target := tmpfs(t, "12m")
	restore(t, e, "vb-1", target)

	r := engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Parallel: 1, Existing: engine.ExistingOverwrite}
	_, err := e.Restore(t.Context(), r, nil)
	require.NoError(t, err)
	requireSame(t, volume, target)
}

const unprivileged = "ESTIBA_TEST_UNPRIVILEGED"

// TestUnprivileged runs its tests in a process of a user who may not do everything.
func TestUnprivileged(t *testing.T) {
	if os.Getenv(unprivileged) != "" {
		t.Run("what cannot be read fails the backup by name", whatCannotBeReadFailsTheBackup)
		t.Run("an owner that cannot be set fails the restore", anOwnerThatCannotBeSetFailsTheRestore)

		return
	}

	needRoot(t)

	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chown(dir, 65534, 65534))

	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestUnprivileged$", "-test.v")
	cmd.Env = []string{unprivileged + "=1", "TMPDIR=" + dir, "HOME=" + dir}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}

	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, 2, strings.Count(string(out), "--- PASS: TestUnprivileged/"), string(out))
}

func whatCannotBeReadFailsTheBackup(t *testing.T) {
	volume := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(volume, "good"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(volume, "closed\n"), []byte("x"), 0))
	require.NoError(t, os.Mkdir(filepath.Join(volume, "closed-folder"), 0))

	e := newEngine(t, store(t, t.TempDir()))
	_, err := e.Backup(t.Context(), request(t, volume, "vb-1"), nil)
	requireCode(t, engine.CodeSourceUnreadable, err)
	require.ErrorIs(t, err, unix.EACCES)
	require.ErrorContains(t, err, "2 entries")
	require.ErrorContains(t, err, `"closed\n"`)
	require.ErrorContains(t, err, `"closed-folder"`)

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
}

func anOwnerThatCannotBeSetFailsTheRestore(t *testing.T) {
	st := store(t, t.TempDir())
	e := newEngine(t, st)
	forge(t, st, "vb-1", `{"stream":"kopia:directory","entries":[{"name":"a","type":"f","mode":"0644","size":1,"uid":1234,"gid":1234,"obj":"FILE"}],"summary":null}`)

	target := t.TempDir()
	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
	requireCode(t, engine.CodeTargetUnwritable, err)
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorContains(t, err, `"a"`)
	assert.NoFileExists(t, filepath.Join(target, "a"))
}

func TestManySmallFilesTakeBoundedMemory(t *testing.T) {
	needRoot(t)

	if testing.Short() {
		t.Skip("takes some seconds")
	}

	const files = 20_000

	volume, target := t.TempDir(), t.TempDir()
	randomFiles(t, volume, files, 500)

	e := newEngine(t, store(t, t.TempDir()))

	peak := peakHeap(func() { backup(t, e, volume, "vb-1") })
	assert.Less(t, peak, uint64(200<<20), "backup")

	peak = peakHeap(func() { restore(t, e, "vb-1", target) })
	assert.Less(t, peak, uint64(200<<20), "restore")

	requireSame(t, volume, target, tree.Skip(func(p string) bool { return p == "." }))
}
