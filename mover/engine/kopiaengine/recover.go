package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	kopiacontent "github.com/kopia/kopia/repo/content"

	"github.com/estiba-dev/estiba/mover/repository"
)

// recoverIndex makes what lies in packs that no index names known again, where an index is
// known to be gone: each pack has a copy of its part of the index at its end. It reports
// whether there was any. What another worker is still writing is such a pack, too, what a dead
// one has left, and one of which all is marked as deleted; to know it early, or in vain, does
// no harm: the latest entry of a content counts.
func (b *backup) recoverIndex(ctx context.Context) (bool, error) {
	if b.recovered {
		return false, nil
	}

	b.recovered = true

	nameless := maps.Clone(b.packs.there)
	maps.DeleteFunc(nameless, func(id blob.ID, _ int64) bool { return b.written.has(id) })

	// What is marked as deleted is in another index than the one with all that the pack holds.
	if err := b.rep.ContentReader().IterateContents(ctx, kopiacontent.IterateOptions{}, func(i kopiacontent.Info) error {
		delete(nameless, i.PackBlobID)

		return nil
	}); err != nil {
		return false, fmt.Errorf("go through the index: %w", err)
	}

	if len(nameless) == 0 {
		return false, nil
	}

	contents := 0

	err := repo.DirectWriteSession(ctx, b.rep, repo.WriteSessionOptions{Purpose: "recover the index of packs"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			for id, size := range nameless {
				// One without a copy that can be read is as good as lost.
				known, err := w.ContentManager().RecoverIndexFromPackBlob(ctx, id, size, true)
				if end := errors.Join(ctx.Err(), repository.StorageErr(b.engine.storage())); end != nil {
					return errors.Join(end, err)
				}

				contents += len(known)
			}

			return nil
		})
	if err != nil {
		return false, fmt.Errorf("recover the index of %d packs: %w", len(nameless), err)
	}

	b.engine.cfg.Log.WarnContext(ctx, "an index of the repository is gone: what it knew was found at the ends of packs",
		"packs", len(nameless), "contents", contents)

	return contents > 0, nil
}
