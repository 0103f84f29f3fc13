package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	kopiacontent "github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
)

// damage is what a backup has found of it in the repository.
type damage struct {
	// packs have lost contents, or are lost, and counted as stored until then.
	packs int
	// indexes are damaged index blobs.
	indexes int
	// unknown are things that an earlier snapshot has and no index knows.
	unknown int
}

// blobs returns how many blobs are lost or damaged, at least.
func (d damage) blobs() int {
	n := d.packs + d.indexes
	if n == 0 && d.unknown > 0 {
		n = 1 // An index, whose name nobody knows any more.
	}

	return n
}

// calendar is kopia's clock: the time, or an earlier one while it is turned back.
type calendar struct {
	now  func() time.Time
	back atomic.Int64 // in seconds; 0 is today
}

// Now returns the time.
func (c *calendar) Now() time.Time {
	if s := c.back.Load(); s != 0 {
		return time.Unix(s, 0)
	}

	return c.now()
}

// drop marks contents as deleted, so that whoever comes by the same data uploads it
// again, and deletes snapshots. It returns how many packs still counted as stored.
//
// Several workers may find the same loss at the same time. To mark a content twice is the
// same as once. What another has uploaded again meanwhile must not be hidden by the mark, and
// the index keeps the latest entry of a content. So the index is read again right
// before, and the mark has the time of the entry that it is for (kopia makes that a second
// later): whatever was uploaded after that wins, however late the mark arrives.
func (b *backup) drop(ctx context.Context, lost func(kopiacontent.Info) bool, ids ...manifest.ID) (int, error) {
	if err := b.rep.Refresh(ctx); err != nil {
		return 0, fmt.Errorf("read the index again: %w", err)
	}

	var gone []kopiacontent.ID

	own := map[kopiacontent.ID]struct{}{}
	oldest := b.calendar.Now().Unix()
	counted := map[blob.ID]struct{}{}

	if err := b.rep.ContentReader().IterateContents(ctx, kopiacontent.IterateOptions{}, func(i kopiacontent.Info) error {
		if lost(i) {
			gone = append(gone, i.ContentID)
			counted[i.PackBlobID] = struct{}{}
			oldest = min(oldest, i.TimestampSeconds)

			if b.written.has(i.PackBlobID) {
				own[i.ContentID] = struct{}{}
			}
		}

		return nil
	}); err != nil {
		return 0, fmt.Errorf("go through the index: %w", err)
	}

	if len(gone) == 0 && len(ids) == 0 {
		return 0, nil
	}

	unrescued := b.unrescued

	err := repo.DirectWriteSession(ctx, b.rep, repo.WriteSessionOptions{Purpose: "drop lost contents"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			gone = b.rescue(ctx, w, gone)
			if err := errors.Join(b.mark(ctx, w, gone, oldest), noteDropped(ctx, w, gone, own)); err != nil {
				return err
			}

			// Only now: a lost content may be what keeps manifests from being read.
			for _, id := range ids {
				if err := w.DeleteManifest(ctx, id); err != nil {
					return fmt.Errorf("delete snapshot %s: %w", id, err)
				}
			}

			return nil
		})
	if err == nil && b.unrescued > unrescued {
		b.rep.ForgetCached() // It holds now what the store has sent of them.
	}

	return len(counted), err
}

// rescues is how many folders and manifests are looked for in vain in this machine's cache.
const rescues = 16

// rescue writes folders and manifests anew that this machine has cached, so that earlier
// snapshots keep them too, and returns the contents that are gone.
func (b *backup) rescue(ctx context.Context, w repo.DirectRepositoryWriter, lost []kopiacontent.ID) []kopiacontent.ID {
	var gone []kopiacontent.ID

	for _, id := range lost {
		if b.unrescued == rescues || !id.HasPrefix() {
			gone = append(gone, id)

			continue
		}

		if err := w.ContentManager().RewriteContent(ctx, id); err != nil {
			b.unrescued++

			gone = append(gone, id)
		}
	}

	return gone
}

// mark marks contents as deleted, under a date before all of them.
func (b *backup) mark(ctx context.Context, w repo.DirectRepositoryWriter, gone []kopiacontent.ID, oldest int64) error {
	b.calendar.back.Store(max(oldest, 1))
	defer b.calendar.back.Store(0)

	for _, id := range gone {
		if err := w.ContentManager().DeleteContent(ctx, id); err != nil {
			return fmt.Errorf("drop lost content %s: %w", id, err)
		}
	}

	return nil
}
