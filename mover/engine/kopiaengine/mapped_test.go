package kopiaengine_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// mapped is a page of a file that a program has mapped.
type mapped struct {
	t    *testing.T
	path string
	page []byte
}

func mapFile(t *testing.T, path string) *mapped {
	t.Helper()

	require.NoError(t, os.WriteFile(path, make([]byte, 4096), 0o600))

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)

	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	t.Cleanup(func() { require.NoError(t, unix.Munmap(page)) })

	return &mapped{t, path, page}
}

// store stores into the page, and reports whether that has set the file's times.
func (m *mapped) store(value string, flags int) bool {
	m.t.Helper()

	before := m.times()
	copy(m.page, value)
	require.NoError(m.t, unix.Msync(m.page, flags))

	return m.times() != before
}

func (m *mapped) times() [2]unix.Timespec {
	m.t.Helper()

	var st unix.Stat_t

	require.NoError(m.t, unix.Stat(m.path, &st))

	return [2]unix.Timespec{st.Mtim, st.Ctim}
}

func TestWhatAProgramStoresIntoItsMemoryIsInTheNextBackup(t *testing.T) {
	for name, test := range map[string]struct {
		mount   func(t *testing.T) string
		telling bool
	}{
		"ext4": {func(t *testing.T) string { t.Helper(); return loopMount(t, "ext4", 32) }, true},
		"xfs":  {func(t *testing.T) string { t.Helper(); return loopMount(t, "xfs", 320) }, true},
		// An emptyDir with the medium Memory is one.
		"tmpfs": {func(t *testing.T) string { t.Helper(); return tmpfs(t, "4m") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := mapFile(t, filepath.Join(test.mount(t), "index"))
			volume := filepath.Dir(m.path)
			st := store(t, t.TempDir())

			// The file's times are older than the grain of any clock when the first backup begins.
			e := newEngineAt(t, st, 5*time.Second)

			unseen := func() bool {
				m.store("first value ", unix.MS_ASYNC)
				backup(t, e, volume, "vb-1")

				return !m.store("SECOND VALUE", unix.MS_SYNC)
			}

			// On a machine that is slow enough, the kernel writes back what was stored first.
			for tries := 1; !unseen(); tries++ {
				require.Less(t, tries, 5, "the store has set a time: this shows nothing")
			}

			later := newEngineAt(t, st, 10*time.Minute)
			assert.Equal(t, test.telling, backup(t, later, volume, "vb-2").Incremental)

			target := t.TempDir()
			restore(t, later, "vb-2", target)
			requireHolds(t, "SECOND VALUE", target)

			// The file is old by now to the one on ext4, and never on the other.
			third := backup(t, later, volume, "vb-3")
			assert.Equal(t, test.telling, third.Summary.ReadBytes == 0, third.Summary.ReadBytes)

			target = t.TempDir()
			restore(t, later, "vb-3", target)
			requireHolds(t, "SECOND VALUE", target)

			if !test.telling {
				require.False(t, m.store("THIRD VALUE ", unix.MS_SYNC))
				backup(t, later, volume, "vb-4")

				target = t.TempDir()
				restore(t, later, "vb-4", target)
				requireHolds(t, "THIRD VALUE ", target)
			}
		})
	}
}

func requireHolds(t *testing.T, want, dir string) {
	t.Helper()

	content, err := os.ReadFile(filepath.Join(dir, "index"))
	require.NoError(t, err)
	require.Equal(t, want, string(content[:len(want)]))
}

func TestHowLongTheKernelMayKeepAWriteCounts(t *testing.T) {
	volume := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o600))

	st := store(t, t.TempDir())
	e := newEngineAt(t, st, 10*time.Minute)
	backup(t, e, volume, "vb-1")
	assert.Zero(t, backup(t, e, volume, "vb-2").Summary.ReadBytes)

	slow := request(t, volume, "vb-3")
	slow.WriteBack = 20 * time.Minute

	res, err := e.Backup(t.Context(), slow, nil)
	require.NoError(t, err)
	assert.EqualValues(t, len("content"), res.Summary.ReadBytes)
}
