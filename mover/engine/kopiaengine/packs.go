package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	kopiacontent "github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

const (
	// askSingly is up to how many packs are asked for one by one. A listing gives a
	// thousand a request, but of the whole repository.
	askSingly   = 128
	askParallel = 8
)

// packs compares what the index of a repository says of packs with what the store
// has. Kopia takes a content that its index knows for stored, whatever has become
// of the pack that holds it: one lost write would make every later snapshot of the
// same data incomplete.
type packs struct {
	storage blob.Storage
	// there has the sizes, in bytes, of the packs found so far.
	there map[blob.ID]int64
}

// lostPacks are packs that the index names and the store has not, or not in full.
type lostPacks map[blob.ID]struct{}

// has reports whether a content lies in one of the packs.
func (l lostPacks) has(i kopiacontent.Info) bool {
	_, ok := l[i.PackBlobID]

	return ok
}

// list asks the store for all packs.
func (p *packs) list(ctx context.Context) error {
	p.there = map[blob.ID]int64{}

	for _, prefix := range kopiacontent.PackBlobIDPrefixes {
		if err := p.storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			p.there[m.BlobID] = m.Length

			return nil
		}); err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
	}

	return nil
}

// lost returns the packs that the index of rep names, be it by contents marked as
// deleted, and that are not there: kopia's maintenance removes no pack that is
// still named, and what it marked, it may yet take back. What was found before is
// not asked for again.
func (p *packs) lost(ctx context.Context, rep repo.DirectRepository) (lostPacks, error) {
	missing := map[blob.ID]int64{}

	if err := rep.ContentReader().IterateContents(ctx, kopiacontent.IterateOptions{IncludeDeleted: true}, func(i kopiacontent.Info) error {
		if end := int64(i.PackOffset) + int64(i.PackedLength); i.PackBlobID != "" && p.there[i.PackBlobID] < end {
			missing[i.PackBlobID] = max(missing[i.PackBlobID], end)
		}

		return nil
	}); err != nil {
		return nil, fmt.Errorf("go through the index: %w", err)
	}

	if len(missing) > askSingly {
		if err := p.list(ctx); err != nil {
			return nil, err
		}

		maps.DeleteFunc(missing, func(id blob.ID, end int64) bool { return p.there[id] >= end })
	}

	return p.ask(ctx, missing)
}

// ask asks for packs one by one: what a listing doesn't have may only have been late.
func (p *packs) ask(ctx context.Context, missing map[blob.ID]int64) (lostPacks, error) {
	var mu sync.Mutex

	lost := lostPacks{}

	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askParallel)

	for id, end := range missing {
		g.Go(func() error {
			m, err := p.storage.GetMetadata(ctx, id)
			if err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
				return fmt.Errorf("look for pack %s: %w", id, err)
			}

			mu.Lock()
			defer mu.Unlock()

			if err != nil || m.Length < end {
				lost[id] = struct{}{}
			} else {
				p.there[id] = m.Length
			}

			return nil
		})
	}

	return lost, g.Wait()
}

// written is a storage that remembers the indexes and packs written through it. A content
// that no index knows is uploaded again, but a snapshot that has it is not whole.
type written struct {
	blob.Storage

	mu    sync.Mutex
	sizes map[blob.ID]int64 // of the indexes
	packs map[blob.ID]struct{}
}

func newWritten(st blob.Storage) *written {
	return &written{Storage: st, sizes: map[blob.ID]int64{}, packs: map[blob.ID]struct{}{}}
}

// Err returns the failure that the storage remembers.
func (s *written) Err() error { return repository.StorageErr(s.Storage) }

// has reports whether an index or a pack was written here.
func (s *written) has(id blob.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	_, index := s.sizes[id]
	_, pack := s.packs[id]

	return index || pack
}

// PutBlob writes a blob.
func (s *written) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if err := s.Storage.PutBlob(ctx, id, data, opts); err != nil || id == "" {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	switch id[0] {
	case 'x':
		s.sizes[id] = int64(data.Length())
	case 'p', 'q':
		s.packs[id] = struct{}{}
	}

	return nil
}

// DeleteBlob deletes a blob.
func (s *written) DeleteBlob(ctx context.Context, id blob.ID) error {
	s.mu.Lock()
	delete(s.sizes, id)
	delete(s.packs, id)
	s.mu.Unlock()

	return s.Storage.DeleteBlob(ctx, id)
}

// lost returns how many of the indexes are not there. That need not be a loss: after
// a day or more, somebody's maintenance may have put them into others.
func (s *written) lost(ctx context.Context) (int, error) {
	s.mu.Lock()
	sizes := maps.Clone(s.sizes)
	s.mu.Unlock()

	lost, err := (&packs{storage: s.Storage, there: map[blob.ID]int64{}}).ask(ctx, sizes)

	return len(lost), err
}

// prepare looks for lost packs before anything is built on them, and has their
// contents dropped.
func (b *backup) prepare(ctx context.Context) (err error) {
	b.packs = &packs{storage: b.engine.storage()}

	if err := b.packs.list(ctx); err != nil {
		return err
	}

	if b.damage.indexes = len(b.rep.DamagedIndexes()); b.damage.indexes > 0 {
		if _, err := b.recoverIndex(ctx); err != nil {
			return err
		}
	}

	if b.lost, err = b.packs.lost(ctx, b.rep); err != nil {
		return err
	}

	if b.damage.packs, err = b.drop(ctx, b.lost.has); err != nil {
		return fmt.Errorf("drop what the store has lost: %w", err)
	}

	broken, err := b.rep.BrokenManifests(ctx)
	if err != nil {
		return fmt.Errorf("read the manifests: %w", err)
	}

	return errors.Join(b.dropBroken(ctx, byPack(broken)), b.takeBack(ctx))
}

// verify looks whether all that the new snapshot needs is there: what this backup
// has written, and what others had written before. If not, its manifest is not written, or
// must not stay: it would count as good, and be built upon.
func (b *backup) verify(ctx context.Context, m *snapshot.Manifest) error {
	if err := b.rep.Refresh(ctx); err != nil {
		return fmt.Errorf("read the index: %w", err)
	}

	lost, err := b.packs.lost(ctx, b.rep)
	if err != nil {
		return err
	}

	indexes, err := b.written.lost(ctx)
	if err != nil {
		return err
	}

	changed, err := b.indexChanged(ctx)
	if err != nil || len(lost)+indexes == 0 && !changed {
		return err
	}

	needed := lost.spare(ctx, b.rep, m)
	if needed == nil {
		return nil
	}

	if err := errors.Join(ctx.Err(), repository.StorageErr(b.engine.storage())); err != nil {
		return errors.Join(err, needed)
	}

	var written []manifest.ID
	if m.ID != "" {
		written = append(written, m.ID)
	}

	_, err = b.drop(ctx, lost.has, written...)

	return engine.Errorf(engine.CodeStoreLostWrite,
		"the store has lost %d packs and %d indexes, and the snapshot is not whole without them, so it is not kept: %w",
		len(lost), indexes, errors.Join(needed, err))
}

// indexChanged reports whether the index has become another one since the snapshot was
// looked through, other than by what this backup has written: another worker may have
// marked as lost what the snapshot needs.
func (b *backup) indexChanged(ctx context.Context) (bool, error) {
	if b.looked == nil {
		return false, nil
	}

	now, err := b.activeIndexes(ctx)

	return !maps.Equal(now, b.looked), err
}

// activeIndexes returns the index blobs in use that this backup has not written.
func (b *backup) activeIndexes(ctx context.Context) (map[blob.ID]int64, error) {
	all, err := b.rep.IndexBlobs(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("list the indexes in use: %w", err)
	}

	active := map[blob.ID]int64{}

	for _, m := range all {
		if !b.written.has(m.BlobID) {
			active[m.BlobID] = m.Length
		}
	}

	return active, nil
}
