package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	kopiacontent "github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// spare returns an error if a snapshot needs any of the packs, what was marked as lost, or
// what no index knows. It goes through all its folders.
func (l lostPacks) spare(ctx context.Context, rep repo.DirectRepository, m *snapshot.Manifest) error {
	w := newWalk(rep, l)
	w.found = func(_ string, _ *snapshot.DirEntry, err error) error { return err }

	return w.whole(ctx, m)
}

// walk goes through a snapshot and looks each thing up that it names, without reading more
// than its folders.
type walk struct {
	rep  repo.DirectRepository
	lost lostPacks
	seen map[object.ID]struct{}
	// packs are those that the snapshot lies in.
	packs map[blob.ID]struct{}
	// found is told what can't be had. Its error ends the walk.
	found func(path string, e *snapshot.DirEntry, err error) error
}

func newWalk(rep repo.DirectRepository, lost lostPacks) *walk {
	return &walk{rep: rep, lost: lost, seen: map[object.ID]struct{}{}, packs: map[blob.ID]struct{}{}}
}

func (w *walk) snapshot(ctx context.Context, m *snapshot.Manifest) error {
	if m.RootEntry == nil {
		return engine.Errorf(engine.CodeRepositoryDamaged, "snapshot %s has no root", m.ID)
	}

	return w.entry(ctx, m.RootEntry, "")
}

// whole goes through a snapshot and what lies beside it.
func (w *walk) whole(ctx context.Context, m *snapshot.Manifest) error {
	if err := w.snapshot(ctx, m); err != nil {
		return err
	}

	list, err := linkEntry(m)
	if err != nil || list == nil {
		return err
	}

	return w.entry(ctx, list, list.Name)
}

func (w *walk) entry(ctx context.Context, e *snapshot.DirEntry, path string) error {
	folder := e.Type == snapshot.EntryTypeDirectory

	if folder {
		if _, ok := w.seen[e.ObjectID]; ok {
			return nil
		}

		w.seen[e.ObjectID] = struct{}{}
	}

	err := w.object(ctx, e.ObjectID, path)
	if err == nil && folder {
		var below error
		if err, below = w.folder(ctx, e.ObjectID, path); below != nil {
			return below
		}
	}

	if err != nil {
		return w.found(path, e, err)
	}

	return nil
}

// folder goes through what a folder holds. The first error is of reading the folder, the
// second one ends the walk.
func (w *walk) folder(ctx context.Context, id object.ID, path string) (unread, end error) {
	r, err := w.rep.OpenObject(ctx, id)
	if err != nil {
		return fmt.Errorf("open folder %s in the repository: %w", quote(path), err), nil
	}
	defer func() { _ = r.Close() }() // Open for reading.

	unread = eachEntry(r, path, func(c *snapshot.DirEntry, raw string) error {
		end = errors.Join(ctx.Err(), w.entry(ctx, c, join(path, raw)))

		return end
	})

	return unread, end
}

func (w *walk) object(ctx context.Context, id object.ID, path string) error {
	if c, _, ok := id.ContentID(); ok {
		return w.content(ctx, c, path)
	}

	ids, err := w.rep.VerifyObject(ctx, id)
	if err != nil {
		return unlistedPieces{fmt.Errorf("look for %s in the repository: %w", quote(path), err)}
	}

	for _, c := range ids {
		if err := w.content(ctx, c, path); err != nil {
			return err
		}
	}

	return nil
}

// unlistedPieces is the error of an object in several pieces of which the list can't be read.
type unlistedPieces struct{ error }

// Unwrap returns the error itself.
func (e unlistedPieces) Unwrap() error { return e.error }

func (w *walk) content(ctx context.Context, id kopiacontent.ID, path string) error {
	i, err := w.rep.ContentInfo(ctx, id)
	if err != nil {
		return fmt.Errorf("look for content %s of %s: %w", id, quote(path), err)
	}

	if i.Deleted || w.lost.has(i) {
		return engine.Errorf(engine.CodeRepositoryDamaged, "%s lies in pack %s, which the store has lost or altered", quote(path), i.PackBlobID)
	}

	w.packs[i.PackBlobID] = struct{}{}

	return nil
}

// manyGaps is from how many entries on a volume is read as a whole again rather than
// them by name.
const manyGaps = 10_000

// gaps are what is missing from a new snapshot.
type gaps struct {
	// paths are those of files and links, raw.
	paths map[string]struct{}
	// folders are those that can't be read, with all below them; lists are those of the pieces of files.
	folders, lists []object.ID
	// first is the first error; unknown says that one was of what no index knows.
	first   error
	unknown bool
}

func (g *gaps) none() bool { return g.first == nil }

// inspect looks whether the repository has all that a new snapshot needs, by its index
// and by reading its folders, and returns which packs these are.
func (b *backup) inspect(ctx context.Context, m *snapshot.Manifest) (*gaps, map[blob.ID]struct{}, error) {
	var err error
	if b.looked, err = b.activeIndexes(ctx); err != nil {
		return nil, nil, err
	}

	g := &gaps{paths: map[string]struct{}{}}
	w := newWalk(b.rep, b.lost)

	w.found = func(path string, e *snapshot.DirEntry, err error) error {
		if end := errors.Join(ctx.Err(), repository.StorageErr(b.engine.storage())); end != nil {
			return errors.Join(end, err)
		}

		if g.first == nil {
			g.first = err
		}

		if unindexed(err) {
			g.unknown = true
			b.damage.unknown++
		}

		if e.Type == snapshot.EntryTypeDirectory {
			g.folders = append(g.folders, e.ObjectID)

			return nil
		}

		if len(g.paths) < manyGaps {
			g.paths[path] = struct{}{}
		}

		// Read anew, the file would be found to have the same list, and that to be stored.
		if of, ok := e.ObjectID.IndexObjectID(); ok && errors.As(err, new(unlistedPieces)) {
			g.lists = append(g.lists, of)
		}

		return nil
	}

	if err := w.whole(ctx, m); err != nil {
		return nil, nil, fmt.Errorf("look through the new snapshot: %w", err)
	}

	return g, w.packs, nil
}

// unindexed reports whether something isn't in the index.
func unindexed(err error) bool {
	return errors.Is(err, kopiacontent.ErrContentNotFound) || errors.Is(err, object.ErrObjectNotFound)
}

// heals is how often a snapshot is made whole: for what no index knows, for what was
// read back and isn't what it was, and for what is found in looking closer then.
const heals = 4

// heal makes a new snapshot whole before it is saved. What was taken over from an earlier
// one, or was stored already, is looked up, and a part of it read back; what the repository
// doesn't have any more is read from the volume and uploaded again.
func (b *backup) heal(ctx context.Context, w repo.RepositoryWriter, m *snapshot.Manifest, src *source) (*snapshot.Manifest, *source, error) {
	for range heals {
		g, err := b.missing(ctx, m)
		if err != nil || g.none() {
			return m, src, err
		}

		b.engine.cfg.Log.WarnContext(ctx, "the repository doesn't have all that the snapshot takes over: it is read and uploaded again",
			"files", len(g.paths), "folders", len(g.folders), "error", g.first)

		// What was lost may be what made the parent one.
		ps := append([]*snapshot.Manifest{m}, b.parents(ctx)...)
		if len(g.paths) == manyGaps {
			ps = nil
		}

		if m, src, err = b.passes(ctx, w, ps, g.paths); err != nil {
			return m, src, err
		}

		if err := b.flush(ctx, w); err != nil {
			return nil, nil, err
		}

		if err := b.confirm(ctx, m); err != nil {
			return nil, nil, err
		}
	}

	return nil, nil, engine.Errorf(engine.CodeStoreLostWrite, "what was read and uploaded again %d times can't be read back: see to the store", heals)
}

// missing looks for what a new snapshot lacks, and drops what is damaged of it.
func (b *backup) missing(ctx context.Context, m *snapshot.Manifest) (*gaps, error) {
	g, packs, err := b.inspect(ctx, m)
	if err != nil {
		return nil, err
	}

	if g.unknown {
		known, err := b.recoverIndex(ctx)
		if err != nil {
			return nil, err
		}

		if known {
			if g, packs, err = b.inspect(ctx, m); err != nil {
				return nil, err
			}
		}
	}

	if !g.none() {
		return g, b.dropUnreadable(ctx, slices.Concat(g.folders, g.lists))
	}

	found, err := b.readShare(ctx, m, packs)
	if err != nil || !found {
		return g, err
	}

	g, _, err = b.inspect(ctx, m)

	return g, err
}

// dropUnreadable looks why folders, and lists of pieces, can't be read, and drops what is damaged of them. Where
// the store has all of it, what was cached is what is bad.
func (b *backup) dropUnreadable(ctx context.Context, objects []object.ID) error {
	broken := map[kopiacontent.ID]blob.ID{}
	intact := false

	for _, id := range objects {
		n := len(broken)

		if err := b.examine(ctx, id, broken); err != nil {
			return err
		}

		intact = intact || len(broken) == n
	}

	if err := b.dropBroken(ctx, broken); err != nil || !intact && len(broken) == 0 {
		return err
	}

	b.rep.ForgetCached()

	return nil
}

// examine reads all contents of an object in the store, and notes those that are damaged.
func (b *backup) examine(ctx context.Context, id object.ID, broken map[kopiacontent.ID]blob.ID) error {
	if index, ok := id.IndexObjectID(); ok {
		n := len(broken)
		if err := b.examine(ctx, index, broken); err != nil || len(broken) > n {
			return err
		}
	}

	ids, err := b.rep.VerifyObject(ctx, id)
	if err != nil {
		return errors.Join(ctx.Err(), repository.StorageErr(b.engine.storage()))
	}

	for _, c := range ids {
		i, err := b.rep.ContentInfo(ctx, c)
		if err != nil || i.Deleted {
			continue // It is uploaded again as it is.
		}

		bad, err := b.rep.Seals().Broken(ctx, i.PackBlobID, []kopiacontent.Info{i})
		if err != nil {
			return err
		}

		maps.Copy(broken, byPack(bad))
	}

	return nil
}

// byPack returns which pack each of the contents lies in.
func byPack(contents []kopiacontent.Info) map[kopiacontent.ID]blob.ID {
	packs := make(map[kopiacontent.ID]blob.ID, len(contents))
	for _, i := range contents {
		packs[i.ContentID] = i.PackBlobID
	}

	return packs
}

// dropBroken drops contents that were found damaged, each in the pack where it was.
func (b *backup) dropBroken(ctx context.Context, broken map[kopiacontent.ID]blob.ID) error {
	if len(broken) == 0 {
		return nil
	}

	packs, err := b.drop(ctx, func(i kopiacontent.Info) bool {
		pack, ok := broken[i.ContentID]

		return ok && pack == i.PackBlobID
	})
	if err != nil {
		return fmt.Errorf("drop what the store has altered: %w", err)
	}

	b.damage.packs += packs

	return nil
}
