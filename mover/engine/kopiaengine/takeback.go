package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kopia/kopia/repo"
	kopiacontent "github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"

	"github.com/estiba-dev/estiba/mover/repository"
)

// droppedType is the type of the manifests that name what was dropped of the list of snapshots.
const droppedType = "estiba-dropped"

// droppedList is such a manifest.
type droppedList struct {
	// Contents are those with manifests that the store had lost or altered.
	Contents []string `json:"contents"`
}

// noteDropped writes down which of the contents that are dropped hold manifests. They are not
// uploaded again by anybody, but whoever sees to the store may bring them back. What this backup
// has written itself is none of them: its snapshot is not whole, and must not come back.
func noteDropped(ctx context.Context, w repo.RepositoryWriter, gone []kopiacontent.ID, own map[kopiacontent.ID]struct{}) error {
	var list droppedList

	for _, id := range gone {
		if _, is := own[id]; !is && strings.HasPrefix(id.String(), string(manifest.ContentPrefix)) {
			list.Contents = append(list.Contents, id.String())
		}
	}

	if len(list.Contents) == 0 {
		return nil
	}

	if _, err := w.PutManifest(ctx, map[string]string{manifest.TypeLabelKey: droppedType}, list); err != nil {
		return fmt.Errorf("write down what is dropped of the list of snapshots: %w", err)
	}

	return nil
}

// takeBack has the list of snapshots hold again what was dropped of it, where the store has that
// again: the blobs were brought back, or were never gone, and a node saw them altered.
func (b *backup) takeBack(ctx context.Context) error {
	lists, err := b.rep.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: droppedType})
	if err != nil {
		return fmt.Errorf("look for what was dropped of the list of snapshots: %w", err)
	}

	for _, m := range lists {
		var list droppedList
		if _, err := b.rep.GetManifest(ctx, m.ID, &list); err != nil {
			return fmt.Errorf("read what was dropped of the list of snapshots: %w", err)
		}

		back, left, err := b.returned(ctx, list)
		if err != nil || len(back) == 0 && left {
			return err
		}

		if err := b.relist(ctx, back, m.ID, left); err != nil {
			return fmt.Errorf("list snapshots again that had been dropped: %w", err)
		}
	}

	return nil
}

// returned returns which of the contents the store has again, and whether others are left.
func (b *backup) returned(ctx context.Context, list droppedList) (back []kopiacontent.ID, left bool, err error) {
	for _, name := range list.Contents {
		id, err := index.ParseID(name)
		if err != nil {
			continue // Nobody writes such a one.
		}

		i, err := b.rep.ContentInfo(ctx, id)
		if err != nil || !i.Deleted {
			if end := errors.Join(ctx.Err(), repository.StorageErr(b.engine.storage())); end != nil {
				return nil, false, end
			}

			continue
		}

		broken, err := b.rep.Seals().Broken(ctx, i.PackBlobID, []kopiacontent.Info{i})
		if err != nil {
			return nil, false, err
		}

		if len(broken) > 0 {
			left = true
		} else {
			back = append(back, id)
		}
	}

	return back, left, nil
}

// relist writes contents anew, and removes the manifest that names them where nothing of it is left.
func (b *backup) relist(ctx context.Context, back []kopiacontent.ID, of manifest.ID, left bool) error {
	b.rep.ForgetCached() // What the store sent when they were damaged may be there.

	return repo.DirectWriteSession(ctx, b.rep, repo.WriteSessionOptions{Purpose: "take dropped manifests back"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			for _, id := range back {
				if err := w.ContentManager().UndeleteContent(ctx, id); err != nil {
					return fmt.Errorf("write content %s anew: %w", id, err)
				}
			}

			if left {
				return nil
			}

			return w.DeleteManifest(ctx, of)
		})
}
