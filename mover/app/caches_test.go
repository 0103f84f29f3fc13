package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const cacheKiB = 1 << 10

func repositoryID(letter string) string { return strings.Repeat(letter, 25) + "a" }

// cacheOf makes a cache of 64 KiB that was used some hours ago.
func cacheOf(t *testing.T, dir, letter string, hours int) string {
	t.Helper()

	folder := filepath.Join(dir, repositoryID(letter))
	require.NoError(t, os.MkdirAll(filepath.Join(folder, "contents"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "contents", "pack.f"), make([]byte, 64*cacheKiB), 0o600))

	used := time.Now().Add(-time.Duration(hours) * time.Hour)
	require.NoError(t, os.Chtimes(folder, used, used))

	return folder
}

func cachesOf(t *testing.T, dir string) string {
	t.Helper()

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)

	var letters strings.Builder

	for _, e := range entries {
		letters.WriteString(e.Name()[:1])
	}

	return letters.String()
}

func TestCachesBeyondTheTotalGoTheOldestFirst(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		total int64
		want  string
	}{
		"all fit":                   {64 * cacheKiB * 10, "abc"},
		"the oldest has no room":    {64*cacheKiB*3 + cacheKiB, "ab"},
		"only what is asked for":    {64 * cacheKiB, "b"},
		"not even that, and yet it": {cacheKiB, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			cacheOf(t, dir, "a", 1)
			cacheOf(t, dir, "b", 2)
			cacheOf(t, dir, "c", 3)

			// One that is used may grow to twice the 64 KiB.
			release, err := newCaches(dir, c.total, 2*64*cacheKiB, time.Now).hold(repositoryID("b"))
			require.NoError(t, err)
			defer release()

			assert.Equal(t, c.want, cachesOf(t, dir))
		})
	}
}

func TestACacheThatIsUsedStaysAndCountsAsTheYoungestAfterwards(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	cacheOf(t, dir, "a", 9)
	cacheOf(t, dir, "b", 1)

	c := newCaches(dir, 2*64*cacheKiB+cacheKiB, 64*cacheKiB, time.Now)

	first, err := c.hold(repositoryID("a"))
	require.NoError(t, err)

	second, err := c.hold(repositoryID("a"))
	require.NoError(t, err)

	first()
	first()

	other, err := c.hold(repositoryID("c"))
	require.NoError(t, err)
	assert.Equal(t, "a", cachesOf(t, dir), "b is younger, but a is in use")

	second()
	other()

	// A process that starts anew knows by the folders' times.
	cacheOf(t, dir, "d", 1)
	require.NoError(t, newCaches(dir, 64*cacheKiB+cacheKiB, 0, time.Now).clean())
	assert.Equal(t, "a", cachesOf(t, dir))
}

func TestWhatKilledWorkersLeftIsRemoved(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	folder := cacheOf(t, dir, "a", 1)
	left := []string{"connection-123.json", "contents/x.f.tmp.abc", "tmp4711"}

	leave := func() {
		for _, name := range left {
			require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte("x"), 0o600))
		}
	}

	c := newCaches(dir, 1<<30, 1, time.Now)

	leave()
	require.NoError(t, c.clean())

	for _, name := range left {
		assert.NoFileExists(t, filepath.Join(folder, name))
	}

	one, err := c.hold(repositoryID("a"))
	require.NoError(t, err)

	two, err := c.hold(repositoryID("a"))
	require.NoError(t, err)

	leave()
	one()
	assert.FileExists(t, filepath.Join(folder, left[0]), "another worker may need it")

	two()

	for _, name := range left {
		assert.NoFileExists(t, filepath.Join(folder, name))
	}

	assert.FileExists(t, filepath.Join(folder, "contents", "pack.f"))
}

func TestOnlyCachesAreRemoved(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	foreign := filepath.Join(dir, "photos", "tmp-of-1999.jpg")
	require.NoError(t, os.MkdirAll(filepath.Dir(foreign), 0o700))
	require.NoError(t, os.WriteFile(foreign, make([]byte, 64*cacheKiB), 0o600))
	cacheOf(t, dir, "a", 1)

	c := newCaches(dir, 1, 1, time.Now)
	require.NoError(t, c.clean())
	assert.FileExists(t, foreign)
	assert.Equal(t, "p", cachesOf(t, dir))

	_, err := c.hold("../photos")
	require.Error(t, err)
}

func TestTheCachesOfAllWorkersFitTheTotal(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		metadata, content, total int64
		workers                  int
		wantMetadata, wantData   int64
	}{
		"there is room":           {100, 100, 1200, 3, 100, 100},
		"less for more workers":   {100, 100, 1200, 6, 50, 50},
		"the proportion is kept":  {300, 100, 800, 4, 75, 25},
		"as small as no cache at": {0, 0, 800, 4, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			metadata, data := cacheSizes(c.metadata, c.content, c.total, c.workers)
			assert.Equal(t, c.wantMetadata, metadata)
			assert.Equal(t, c.wantData, data)
		})
	}
}
