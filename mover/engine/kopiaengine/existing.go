package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

// listedAtOnce is how many entries are listed at a time.
const listedAtOnce = 256

// removalPasses bounds how often a folder is listed anew after something was removed from it.
const removalPasses = 16

// vacant refuses a volume that holds data where it must hold none.
func (w *restorer) vacant(r engine.RestoreRequest) error {
	if !r.Guarded() {
		return nil
	}

	found, err := held(w.root)
	if err != nil || len(found) == 0 {
		return err
	}

	volume := r.Description
	if volume == "" {
		volume = "the volume"
	}

	more := ""
	if len(found) > engine.MaxFound {
		found, more = found[:engine.MaxFound], " and more"
	}

	half := ""
	if r.Existing == engine.ExistingKeep {
		half = "; it is not kept, since it may be what an earlier restore has left half done"
	}

	return engine.Errorf(engine.CodeTargetNotEmpty, "%s holds data already, and nothing was written: it has %s%s%s",
		volume, strings.Join(found, ", "), more, half)
}

// kept returns the first entries of the data that the volume holds and is to keep.
func kept(root *beneath.Root, r engine.RestoreRequest) ([]string, error) {
	if !r.Keeps() {
		return nil, nil
	}

	found, err := held(root)

	return found[:min(len(found), engine.MaxFound)], err
}

// held returns the first entries of what a volume holds; see contents.
func held(root *beneath.Root) ([]string, error) {
	found, err := contents(root.Dir())
	if err != nil {
		return nil, engine.Errorf(engine.CodeTargetUnwritable, "look whether the volume is empty: %w", err)
	}

	return found, nil
}

// contents returns the first entries of a volume, quoted, and one more than are named
// where there are more. An empty folder that the file system has made counts as none.
func contents(root *beneath.Dir) (found []string, err error) {
	err = eachListed(root, func(e beneath.Entry) error {
		if lostAndFound(e, "") {
			empty, err := isEmptyIn(root, e)
			if err != nil || empty {
				return err
			}
		}

		found = append(found, quote(e.Name))
		if len(found) > engine.MaxFound {
			return io.EOF
		}

		return nil
	})

	return found, err
}

// eachListed does something with each entry of a folder; io.EOF ends it well.
func eachListed(d *beneath.Dir, do func(beneath.Entry) error) (err error) {
	l, err := d.List()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	for {
		entries, err := l.Next(listedAtOnce)
		if errors.Is(err, io.EOF) {
			return nil
		}

		if err != nil {
			return err
		}

		for _, e := range entries {
			if err := do(e); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

func isEmptyIn(parent *beneath.Dir, e beneath.Entry) (empty bool, err error) {
	d, err := parent.OpenDir(e)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	return isEmpty(d)
}

func isEmpty(d *beneath.Dir) (bool, error) {
	empty := true

	err := eachListed(d, func(beneath.Entry) error {
		empty = false

		return io.EOF
	})

	return empty, err
}

// removeExtras removes from d what the folder of the snapshot does not have. The whole
// of that folder is read before: what can't be read must not pass for what is not there.
func (w *restorer) removeExtras(ctx context.Context, d *beneath.Dir, id object.ID, path string) error {
	empty, err := isEmpty(d)
	if err != nil || empty {
		return w.targetError(path, err)
	}

	names, err := w.names(ctx, id, path)
	if err != nil {
		return err
	}

	stuck := map[string]struct{}{}

	// On some file systems, those of servers above all, a listing passes over entries when others
	// are removed meanwhile: the last one must have had nothing to remove.
	for range removalPasses {
		removed := false

		err := eachListed(d, func(e beneath.Entry) error {
			if _, has := names[e.Name]; has {
				return nil
			}

			if _, is := stuck[e.Name]; is {
				return nil
			}

			if err := ctx.Err(); err != nil {
				return err
			}

			err := w.removeExtra(d, e, path)
			if err != nil {
				stuck[e.Name] = struct{}{}

				return w.judge(ctx, join(path, e.Name), err)
			}

			removed = removed || !lostAndFound(e, path)

			return nil
		})
		if err != nil || !removed {
			return err
		}
	}

	return engine.Errorf(engine.CodeTargetUnwritable, "remove from folder %s what the snapshot does not have: there is ever more of it", quote(path))
}

// lostAndFound reports whether it is the folder that the file system keeps for itself.
func lostAndFound(e beneath.Entry, path string) bool {
	return path == "" && e.Name == engine.LostAndFound && e.Err == nil && e.Kind == beneath.KindDirectory
}

// names returns the names in a folder of the snapshot.
func (w *restorer) names(ctx context.Context, id object.ID, path string) (map[string]struct{}, error) {
	r, err := w.rep.OpenObject(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open folder %s in the repository: %w", quote(path), err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	names := map[string]struct{}{}
	err = eachEntry(r, path, func(_ *snapshot.DirEntry, raw string) error {
		names[raw] = struct{}{}

		return ctx.Err()
	})

	return names, err
}

// removeExtra removes one entry with all that is in it. Of the folder that the file
// system keeps for itself, only the content goes.
func (w *restorer) removeExtra(parent *beneath.Dir, e beneath.Entry, path string) (err error) {
	if !lostAndFound(e, path) {
		return w.removalError(join(path, e.Name), parent.RemoveAll(e.Name))
	}

	d, err := parent.OpenDir(e)
	if err != nil {
		return w.removalError(e.Name, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	return eachListed(d, func(child beneath.Entry) error {
		return w.removalError(join(e.Name, child.Name), d.RemoveAll(child.Name))
	})
}

// removalError says why what the snapshot does not have could not be removed.
func (w *restorer) removalError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, beneath.ErrMountPoint):
		err = fmt.Errorf("%w; another file system is mounted there: unmount it", err)
	case errors.Is(err, unix.EPERM):
		err = fmt.Errorf("%w; it may be immutable or append-only: see lsattr", err)
	}

	return engine.Errorf(engine.CodeTargetUnwritable, "remove %s, which the snapshot does not have: %w", quote(path), err)
}
