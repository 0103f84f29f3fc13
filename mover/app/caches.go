package app

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/estiba-dev/estiba/mover/credentials"
)

// hardFactor is by how much kopia lets a cache exceed its size for as long as its entries are young.
const hardFactor = 2

// caches bounds what the caches of all repositories take on this node's disk:
// kopia bounds those of one repository only, and nobody else removes those of
// repositories that are used no more. Each folder below dir that is named like
// a repository is a cache; anything else is left alone.
type caches struct {
	dir string
	// total is the bound, and each what one that is in use may grow to, in bytes.
	total, each int64
	now         func() time.Time

	mu     sync.Mutex
	looked bool
	known  map[string]*cacheFolder
}

// cacheFolder is what is known of one repository's cache.
type cacheFolder struct {
	users int
	// size is in bytes, of when it was last not in use.
	size int64
	used time.Time
}

func newCaches(dir string, total, each int64, now func() time.Time) *caches {
	return &caches{dir: dir, total: total, each: each, now: now, known: map[string]*cacheFolder{}}
}

// cacheSizes returns the bounds of the metadata and content cache of one
// repository, in bytes: as asked for, or less where all workers at a time
// could exceed the total.
func cacheSizes(metadata, content, total int64, workers int) (fitMetadata, fitContent int64) {
	asked, room := metadata+content, total/int64(max(workers, 1))/hardFactor
	if asked <= room || asked <= 0 {
		return metadata, content
	}

	fitMetadata = int64(float64(room) * float64(metadata) / float64(asked))

	return fitMetadata, room - fitMetadata
}

// clean removes what killed workers left, and caches beyond the total. To be
// called when the process starts; hold does it otherwise.
func (c *caches) clean() error {
	c.mu.Lock()
	defer c.mu.Unlock()

	if err := c.look(); err != nil {
		return err
	}

	return c.fit()
}

// hold keeps the repository's cache until release is called, and makes room for
// it: the caches that were not used for longest are removed until what there is,
// and what those in use may grow to, is within the total.
func (c *caches) hold(repository string) (release func(), err error) {
	if err := credentials.CheckRepositoryID(repository); err != nil {
		return nil, fmt.Errorf("cache of a repository: %w", err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if err := c.look(); err != nil {
		return nil, err
	}

	f := c.known[repository]
	if f == nil {
		f = &cacheFolder{}
		c.known[repository] = f
	}

	f.users++

	if err := c.fit(); err != nil {
		f.users--

		return nil, err
	}

	return sync.OnceFunc(func() { c.release(repository, f) }), nil
}

func (c *caches) release(repository string, f *cacheFolder) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if f.users--; f.users > 0 {
		return
	}

	f.used = c.now()
	// What can't be read or marked now is looked at again, and told of, by the next hold.
	size, err := tidy(filepath.Join(c.dir, repository))
	if err == nil && size > 0 {
		err = os.Chtimes(filepath.Join(c.dir, repository), f.used, f.used)
	}

	f.size = size
	c.looked = c.looked && err == nil
}

// look reads which caches there are, once.
func (c *caches) look() error {
	if c.looked {
		return nil
	}

	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for caches in %s (--cache-dir): %w", c.dir, err)
	}

	for _, e := range entries {
		if f := c.known[e.Name()]; !e.IsDir() || credentials.CheckRepositoryID(e.Name()) != nil || f != nil && f.users > 0 {
			continue
		}

		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("look at the cache of repository %s: %w", e.Name(), err)
		}

		size, err := tidy(filepath.Join(c.dir, e.Name()))
		if err != nil {
			return err
		}

		c.known[e.Name()] = &cacheFolder{size: size, used: info.ModTime()}
	}

	c.looked = true

	return nil
}

// fit removes the caches that were not used for longest until all is within the total.
func (c *caches) fit() error {
	var (
		idle []string
		sum  int64
	)

	for name, f := range c.known {
		if f.users > 0 {
			sum += max(c.each, f.size)
			continue
		}

		sum += f.size
		idle = append(idle, name)
	}

	slices.SortFunc(idle, func(a, b string) int {
		return cmp.Or(c.known[a].used.Compare(c.known[b].used), cmp.Compare(a, b))
	})

	for _, name := range idle {
		if sum <= c.total {
			break
		}

		if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
			return fmt.Errorf("remove the cache of repository %s, to keep within --cache-total: %w", name, err)
		}

		sum -= c.known[name].size
		delete(c.known, name)
	}

	return nil
}

// tidy removes what a killed worker left unfinished in a cache that nobody
// uses, and returns what the rest takes on disk, in bytes. A folder that is not there takes nothing.
func tidy(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}

		if err != nil || e.IsDir() {
			return err
		}

		if unfinishedCacheFile(e.Name()) {
			return os.Remove(path) //nolint:gosec // the folder is the daemon's own; nobody else can put links there
		}

		info, err := e.Info()
		if err == nil {
			size += onDisk(info)
		}

		return err
	})
	if err != nil {
		return size, fmt.Errorf("look at cache %s: %w", dir, err)
	}

	return size, nil
}

// unfinishedCacheFile recognizes the files that only a running worker needs: its
// description of the connection, and what kopia writes before it gives it its
// name (kopia v0.23.1 repo/blob/filesystem, repo/content/committed_content_index_disk_cache.go).
func unfinishedCacheFile(name string) bool {
	connection, _ := filepath.Match("connection-*.json", name)

	return connection || strings.Contains(name, ".tmp.") || strings.HasPrefix(name, "tmp")
}

// onDisk returns what a file takes: at least its length, for file systems that give it its blocks later.
func onDisk(info fs.FileInfo) int64 {
	const block = 512

	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return max(info.Size(), s.Blocks*block)
	}

	return info.Size()
}
