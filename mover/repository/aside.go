package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
	"golang.org/x/sync/errgroup"
)

const (
	// AsidePrefix is put before the name of a damaged index blob that was moved aside. No
	// name of kopia's begins like that.
	AsidePrefix = "damaged-"

	checkParallel = 4
)

// aside is a storage without the index blobs that were found damaged. kopia opens no
// repository with one of them, though each of the others may be read by itself.
type aside struct {
	blob.Storage

	mu     sync.Mutex
	hidden map[blob.ID]struct{}
	// sound says that a blob was seen that the keys of the repository open.
	sound bool
}

func newAside(st blob.Storage) *aside { return &aside{Storage: st, hidden: map[blob.ID]struct{}{}} }

// Err returns the failure that the storage remembers.
func (a *aside) Err() error { return StorageErr(a.Storage) }

func (a *aside) hides(id blob.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()

	_, ok := a.hidden[id]

	return ok
}

func (a *aside) hide(id blob.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()

	a.hidden[id] = struct{}{}
}

func (a *aside) ids() []blob.ID {
	a.mu.Lock()
	defer a.mu.Unlock()

	ids := make([]blob.ID, 0, len(a.hidden))
	for id := range a.hidden {
		ids = append(ids, id)
	}

	slices.Sort(ids)

	return ids
}

// ListBlobs leaves out what is hidden.
func (a *aside) ListBlobs(ctx context.Context, prefix blob.ID, do func(blob.Metadata) error) error {
	return a.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		if a.hides(m.BlobID) {
			return nil
		}

		return do(m)
	})
}

// GetMetadata finds nothing that is hidden: kopia asks so for what it has written itself and
// misses in a listing.
func (a *aside) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	if a.hides(id) {
		return blob.Metadata{}, blob.ErrBlobNotFound
	}

	return a.Storage.GetMetadata(ctx, id)
}

// search reads all index blobs, and hides the damaged ones. It returns how many those are.
func (a *aside) search(ctx context.Context, s Settings) (int, error) {
	now := s.Now
	if now == nil {
		now = time.Now
	}

	m, err := format.NewManager(ctx, a.Storage, "", format.DefaultRepositoryBlobCacheDuration, s.Password, now)
	if err != nil {
		return 0, fmt.Errorf("open the repository's keys: %w", err)
	}

	var all []blob.Metadata

	if err := a.ListBlobs(ctx, "x", func(m blob.Metadata) error {
		all = append(all, m)

		return nil
	}); err != nil {
		return 0, fmt.Errorf("list indexes: %w", err)
	}

	damaged, err := a.check(ctx, newSeals(a.Storage, m.Encryptor()), all)

	return len(damaged), err
}

// check reads index blobs, and hides and returns the damaged ones.
func (a *aside) check(ctx context.Context, seals *Seals, indexes []blob.Metadata) ([]blob.ID, error) {
	var (
		mu      sync.Mutex
		damaged []blob.ID
	)

	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(checkParallel)

	for _, m := range indexes {
		if indexIV(m.BlobID) == nil {
			continue
		}

		g.Go(func() error {
			broken, err := seals.BrokenIndex(ctx, m)

			mu.Lock()
			defer mu.Unlock()

			if broken {
				damaged = append(damaged, m.BlobID)
			} else if err == nil {
				a.sound = true
			}

			return err
		})
	}

	err := g.Wait()

	for _, id := range damaged {
		a.hide(id)
	}

	return damaged, err
}

// DamagedIndexes returns the index blobs that were found damaged: the repository is open
// without them.
func (r *Repository) DamagedIndexes() []blob.ID { return r.aside.ids() }

// CheckIndexes reads index blobs back, and opens the repository without the damaged
// ones, which it returns.
func (r *Repository) CheckIndexes(ctx context.Context, indexes []blob.Metadata) ([]blob.ID, error) {
	damaged, err := r.aside.check(ctx, r.Seals(), indexes)
	if err != nil || len(damaged) == 0 {
		return nil, err
	}

	if err := r.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("read the index without what is damaged: %w", err)
	}

	return damaged, nil
}

// MoveAside renames the damaged index blobs (see AsidePrefix), so that the stock
// kopia, and whoever opens the repository next, does without them, and they are kept for
// who may want them. It does nothing as long as no index was seen that the repository's keys
// open: then the keys may be what is wrong.
func (r *Repository) MoveAside(ctx context.Context) error {
	r.aside.mu.Lock()
	sound := r.aside.sound
	r.aside.mu.Unlock()

	if !sound {
		return nil
	}

	for _, id := range r.DamagedIndexes() {
		b := &buffer{}

		err := r.aside.GetBlob(ctx, id, 0, -1, b)
		if errors.Is(err, blob.ErrBlobNotFound) {
			continue // Somebody else has done it.
		}

		if err == nil {
			err = r.aside.PutBlob(ctx, AsidePrefix+id, octets(b.data), blob.PutOptions{})
		}

		if err == nil {
			err = r.aside.DeleteBlob(ctx, id)
		}

		if err != nil {
			return fmt.Errorf("move damaged index %s aside: %w", id, err)
		}
	}

	return nil
}

// ForgetCached empties the caches of packs and indexes on this machine. kopia keeps there
// what the store has sent before it looks whether that is sound.
func (r *Repository) ForgetCached() {
	r.memory.forgetAll(cachedIndexes, cachedMetadata, cachedContents)
}

// octets implements blob.Bytes.
type octets []byte

func (p octets) Length() int { return len(p) }

func (p octets) Reader() io.ReadSeekCloser { return unclosed{bytes.NewReader(p)} }

func (p octets) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(p)

	return int64(n), err
}

// unclosed is a reader that holds nothing.
type unclosed struct{ *bytes.Reader }

func (unclosed) Close() error { return nil }
