package kopiaengine_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// loopMount mounts a new file system of the size in MiB, or skips the test.
func loopMount(t *testing.T, kind string, mib int) string {
	t.Helper()
	needRoot(t)

	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	require.NoError(t, os.Mkdir(at, 0o755))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, int64(mib)<<20))

	for _, cmd := range [][]string{{"mkfs." + kind, "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Skipf("loop mounts of %s are not possible here: %s: %v: %s", kind, strings.Join(cmd, " "), err, out)
		}
	}

	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, 0), "an open descriptor was left behind") })

	return at
}

// allocatedIn returns what the files of a folder take up, in bytes.
func allocatedIn(t *testing.T, dir string) int64 {
	t.Helper()

	total := int64(0)

	require.NoError(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}

		info, err := d.Info()
		if err == nil {
			total += info.Sys().(*syscall.Stat_t).Blocks * 512
		}

		return err
	}))

	return total
}

func putHoles(t *testing.T, path string, size int64, at ...int64) {
	t.Helper()

	f, err := os.Create(path)
	require.NoError(t, err)

	for i, off := range at {
		_, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 700), off)
		require.NoError(t, err)
	}

	require.NoError(t, f.Truncate(size))
	require.NoError(t, f.Close())
}

func TestAVolumeWithHolesIsRestoredIntoOneOfItsSize(t *testing.T) {
	for kind, mib := range map[string]int{"ext4": 64, "xfs": 300} {
		t.Run(kind, func(t *testing.T) {
			volume, target := loopMount(t, kind, mib), loopMount(t, kind, mib)

			const big = 128 << 20

			putHoles(t, filepath.Join(volume, "all hole"), big)
			putHoles(t, filepath.Join(volume, "data at its ends"), big, 0, big-700)
			putHoles(t, filepath.Join(volume, "islands"), 96<<20, 1<<20+100, 5<<20, 64<<20-300, 90<<20+4095)
			putHoles(t, filepath.Join(volume, "a byte of nothing"), 1)
			putHoles(t, filepath.Join(volume, "odd end"), 16<<20+1, 16<<20-350)
			randomFiles(t, volume, 20, 1<<20)
			require.NoError(t, exec.CommandContext(t.Context(), "sync", "-f", volume).Run())

			e := newEngine(t, store(t, t.TempDir()))
			backup(t, e, volume, "vb-1")

			_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
			require.NoError(t, err)
			requireSame(t, volume, target, tree.Skip(func(p string) bool { return p == engine.LostAndFound }))

			want, got := allocatedIn(t, volume), allocatedIn(t, target)
			assert.LessOrEqual(t, got, want+20*4096, "one block more for each end of data at most")

			t.Run("and over other data, without that showing through", func(t *testing.T) {
				for _, name := range []string{"islands", "odd end"} {
					require.NoError(t, os.WriteFile(filepath.Join(target, name), bytes.Repeat([]byte("x"), 1<<20), 0o600))
				}

				restore(t, e, "vb-1", target)
				requireSame(t, volume, target, tree.Skip(func(p string) bool { return p == engine.LostAndFound }))
			})
		})
	}
}

func TestWhatASnapshotNeedsIsWhatItsFilesTookUp(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 6, 1<<20)
	putHoles(t, filepath.Join(volume, "hole"), 1<<30, 0)

	st := store(t, t.TempDir())
	e := newEngine(t, st)
	backup(t, e, volume, "vb-1")

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)

	told, err := strconv.ParseInt(list[0].Tags["estiba-allocated"], 10, 64)
	require.NoError(t, err)
	assert.InDelta(t, 6<<20+4096, told, 8192)

	t.Run("too little room is said before anything is written", func(t *testing.T) {
		target := tmpfs(t, "4m")
		_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
		requireCode(t, engine.CodeTargetFull, err)
		require.ErrorContains(t, err, "needs 629")

		entries, err := os.ReadDir(target)
		require.NoError(t, err)
		assert.Empty(t, entries)
	})
}
