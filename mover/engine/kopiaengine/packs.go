package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	kopiacontent "github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
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

// lost gives the packs that the index of rep names, be it by contents marked as
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

// indexes is a storage that remembers the indexes written through it. A content that
// no index knows is uploaded again, but a snapshot that has it is not whole.
type indexes struct {
	blob.Storage

	mu    sync.Mutex
	sizes map[blob.ID]int64
}

// Err gives the failure that the storage remembers.
func (s *indexes) Err() error { return repository.StorageErr(s.Storage) }

// PutBlob writes a blob.
func (s *indexes) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if err := s.Storage.PutBlob(ctx, id, data, opts); err != nil || !strings.HasPrefix(string(id), "x") {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.sizes[id] = int64(data.Length())

	return nil
}

// DeleteBlob deletes a blob.
func (s *indexes) DeleteBlob(ctx context.Context, id blob.ID) error {
	s.mu.Lock()
	delete(s.sizes, id)
	s.mu.Unlock()

	return s.Storage.DeleteBlob(ctx, id)
}

// lost tells how many of the indexes are not there. That need not be a loss: after
// a day or more, somebody's maintenance may have put them into others.
func (s *indexes) lost(ctx context.Context) (int, error) {
	s.mu.Lock()
	sizes := maps.Clone(s.sizes)
	s.mu.Unlock()

	lost, err := (&packs{storage: s.Storage, there: map[blob.ID]int64{}}).ask(ctx, sizes)

	return len(lost), err
}

// drop marks the contents of the packs as deleted, so that whoever comes by the
// same data uploads it again, and deletes snapshots. It tells how many packs still
// counted as stored.
//
// Several workers may find the same loss at the same time. To mark a content twice is the
// same as once. What another has uploaded again meanwhile must not be marked: the index keeps
// the latest entry of a content, so that the mark would hide the new pack. So the index is read again
// right before. Who uploads one in the moment between that and the mark finds the mark when
// it verifies, fails, and is tried again; only one that has verified within that very moment is
// not whole afterwards, and nobody tells: a restore of it fails. Later backups don't build upon it, because
// marked contents count among the lost.
func (l lostPacks) drop(ctx context.Context, rep repo.DirectRepository, ids ...manifest.ID) (int, error) {
	var gone []kopiacontent.ID

	counted := map[blob.ID]struct{}{}

	if err := rep.Refresh(ctx); err != nil {
		return 0, fmt.Errorf("read the index again: %w", err)
	}

	if err := rep.ContentReader().IterateContents(ctx, kopiacontent.IterateOptions{}, func(i kopiacontent.Info) error {
		if _, ok := l[i.PackBlobID]; ok {
			gone = append(gone, i.ContentID)
			counted[i.PackBlobID] = struct{}{}
		}

		return nil
	}); err != nil {
		return 0, fmt.Errorf("go through the index: %w", err)
	}

	if len(gone) == 0 && len(ids) == 0 {
		return 0, nil
	}

	return len(counted), repo.DirectWriteSession(ctx, rep, repo.WriteSessionOptions{Purpose: "drop lost contents"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			for _, id := range gone {
				if err := w.ContentManager().DeleteContent(ctx, id); err != nil {
					return fmt.Errorf("drop lost content %s: %w", id, err)
				}
			}

			// Only now: a lost content may be what keeps manifests from being read.
			for _, id := range ids {
				if err := w.DeleteManifest(ctx, id); err != nil {
					return fmt.Errorf("delete snapshot %s: %w", id, err)
				}
			}

			return nil
		})
}

// spare tells with an error if a snapshot needs any of the packs, or what no index
// knows. It goes through all its folders, so it is for where there is a doubt only.
func (l lostPacks) spare(ctx context.Context, rep repo.DirectRepository, m *snapshot.Manifest) error {
	if m.RootEntry == nil {
		return engine.Errorf(engine.CodeRepositoryDamaged, "snapshot %s has no root", m.ID)
	}

	w := walk{rep: rep, lost: l, seen: map[object.ID]struct{}{}}

	return w.entry(ctx, m.RootEntry, "")
}

// walk looks for lost packs below a folder.
type walk struct {
	rep  repo.DirectRepository
	lost lostPacks
	seen map[object.ID]struct{}
}

func (w *walk) entry(ctx context.Context, e *snapshot.DirEntry, path string) error {
	if _, ok := w.seen[e.ObjectID]; ok {
		return nil
	}

	if err := w.object(ctx, e.ObjectID, path); err != nil || e.Type != snapshot.EntryTypeDirectory {
		return err
	}

	w.seen[e.ObjectID] = struct{}{}

	r, err := w.rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return fmt.Errorf("open folder %s in the repository: %w", quote(path), err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	return eachEntry(r, path, func(c *snapshot.DirEntry, raw string) error {
		return errors.Join(ctx.Err(), w.entry(ctx, c, join(path, raw)))
	})
}

func (w *walk) object(ctx context.Context, id object.ID, path string) error {
	ids, err := w.rep.VerifyObject(ctx, id)
	if err != nil {
		return fmt.Errorf("look for %s in the repository: %w", quote(path), err)
	}

	for _, id := range ids {
		i, err := w.rep.ContentInfo(ctx, id)
		if err != nil {
			return fmt.Errorf("look for content %s of %s: %w", id, quote(path), err)
		}

		if _, ok := w.lost[i.PackBlobID]; ok {
			return engine.Errorf(engine.CodeRepositoryDamaged, "%s lies in pack %s, which the store has lost", quote(path), i.PackBlobID)
		}
	}

	return nil
}

// prepare looks for lost packs before anything is built on them, and has their
// contents dropped.
func (b *backup) prepare(ctx context.Context, rep repo.DirectRepository) (err error) {
	b.packs = &packs{storage: b.engine.storage()}

	if err := b.packs.list(ctx); err != nil {
		return err
	}

	if b.lost, err = b.packs.lost(ctx, rep); err != nil || len(b.lost) == 0 {
		return err
	}

	if b.dropped, err = b.lost.drop(ctx, rep); err != nil {
		return fmt.Errorf("drop what the store has lost: %w", err)
	}

	if b.dropped > 0 {
		b.engine.cfg.Log.WarnContext(ctx, "the store has lost packs of the repository: their contents are uploaded again where the volume has them, and earlier snapshots with them are damaged",
			"lostPacks", b.dropped)
	}

	return nil
}

// verify looks whether all that the new snapshot needs is there: what this backup
// has written, and what others had written before. If not, its manifest is not written, or
// must not stay: it would count as good, and be built upon.
func (b *backup) verify(ctx context.Context, rep repo.DirectRepository, m *snapshot.Manifest) error {
	if err := rep.Refresh(ctx); err != nil {
		return fmt.Errorf("read the index: %w", err)
	}

	lost, err := b.packs.lost(ctx, rep)
	if err != nil {
		return err
	}

	indexes, err := b.written.lost(ctx)
	if err != nil || len(lost)+indexes == 0 {
		return err
	}

	needed := lost.spare(ctx, rep, m)
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

	_, err = lost.drop(ctx, rep, written...)

	return engine.Errorf(engine.CodeStoreLostWrite,
		"the store has lost %d packs and %d indexes, and the snapshot is not whole without them, so it is not kept: %w",
		len(lost), indexes, errors.Join(needed, err))
}
