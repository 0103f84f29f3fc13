package kopiaengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

// place is a folder of the snapshot on the way down to what is being restored.
type place struct {
	path  string
	id    object.ID
	above *place
	way   *way
}

func placeOf(path string, id object.ID, above *place) *place {
	p := &place{path: path, id: id, above: above}
	if above != nil {
		// A copy: a name that is kept must not keep the whole path.
		p.way = &way{name: strings.Clone(path[strings.LastIndexByte(path, '/')+1:]), above: above.way}
	}

	return p
}

// way leads to a folder, name by name; nil is the root. It takes little memory however long the path is.
type way struct {
	name  string
	above *way
}

func (w *way) path() string {
	var names []string
	for ; w != nil; w = w.above {
		names = append(names, w.name)
	}

	slices.Reverse(names)

	return strings.Join(names, "/")
}

// has reports whether a folder is this one or one of those above. An honest repository
// can't have a folder within itself, because its ID is made of its content.
func (p *place) has(id object.ID) bool {
	for ; p != nil; p = p.above {
		if p.id == id {
			return true
		}
	}

	return false
}

// folder restores a folder and all below it into d, and its attributes last: what
// is written into it changes its times.
func (w *restorer) folder(ctx context.Context, d *beneath.Dir, e *snapshot.DirEntry, path string, above *place) error {
	if e.Type != snapshot.EntryTypeDirectory {
		return damaged(path, "is a %q, not a folder", e.Type)
	}

	if above.has(e.ObjectID) {
		return damaged(path, "is a folder that holds itself")
	}

	if _, err := d.SweepTemps(); err != nil {
		return w.targetError(path, err)
	}

	if w.mirror {
		if err := w.removeExtras(ctx, d, e.ObjectID, path); err != nil {
			return err
		}
	}

	// What could be read of a folder is there, and bears its attributes.
	if err := w.judge(ctx, path, w.children(ctx, d, placeOf(path, e.ObjectID, above))); err != nil {
		return err
	}

	// Somewhere below, another goroutine may have failed.
	if err := ctx.Err(); err != nil {
		return err
	}

	if err := d.SetAttrs(attrsOf(e)); err != nil {
		return w.targetError(path, err)
	}

	w.dirs.files.Add(1)

	return nil
}

// children restores what a folder holds, and waits until it is done.
func (w *restorer) children(ctx context.Context, d *beneath.Dir, here *place) error {
	r, err := w.rep.OpenObject(ctx, here.id)
	if err != nil {
		return fmt.Errorf("open folder %s in the repository: %w", quote(here.path), err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	var wg sync.WaitGroup
	defer wg.Wait()

	return eachEntry(r, here.path, func(c *snapshot.DirEntry, raw string) error {
		if err := ctx.Err(); err != nil {
			return err
		}

		w.spread(&wg, func() error { return w.judge(ctx, join(here.path, raw), w.entry(ctx, d, c, raw, here)) })

		return nil
	})
}

func (w *restorer) entry(ctx context.Context, d *beneath.Dir, e *snapshot.DirEntry, raw string, in *place) error {
	path := join(in.path, raw)

	switch e.Type {
	case snapshot.EntryTypeDirectory:
		child, err := d.MakeDir(raw)
		if err != nil {
			return w.targetError(path, err)
		}

		return errors.Join(w.folder(ctx, child, e, path, in), w.targetError(path, child.Close()))
	case snapshot.EntryTypeSymlink:
		return w.symlink(ctx, d, e, raw, path)
	case snapshot.EntryTypeFile:
		return w.file(ctx, d, e, raw, in)
	case snapshot.EntryTypeUnknown:
	}

	return damaged(path, "has the unknown type %q", e.Type)
}

// damaged is the error of a repository that holds what nobody writes.
func damaged(path, format string, args ...any) error {
	return engine.Errorf(engine.CodeRepositoryDamaged, "%s in the repository %w", quote(path), fmt.Errorf(format, args...))
}

// attrsOf returns the attributes of an entry. Kopia keeps setuid, setgid and sticky as
// Go has them.
func attrsOf(e *snapshot.DirEntry) beneath.Attrs {
	return beneath.Attrs{
		UID:     e.UserID,
		GID:     e.GroupID,
		Mode:    unixMode(e.Permissions),
		ModTime: e.ModTime.ToTime(),
	}
}

// eachEntry reads a folder of a snapshot entry by entry, however many there are, and
// checks each name before anything is done with it. It is read here and not by
// kopia, whose reader puts the newest time below a folder in the place of its own.
func eachEntry(r io.Reader, path string, do func(e *snapshot.DirEntry, raw string) error) error {
	dec := json.NewDecoder(r)

	some, err := enterEntries(dec)
	if err != nil {
		return fmt.Errorf("read folder %s in the repository: %w", quote(path), err)
	}

	if !some {
		return nil
	}

	var names order

	for dec.More() {
		e := &snapshot.DirEntry{}
		if err := dec.Decode(e); err != nil {
			return fmt.Errorf("read folder %s in the repository: %w", quote(path), err)
		}

		raw, err := names.next(e)
		if err != nil {
			return damaged(join(path, e.Name), "%w", err)
		}

		if err := do(e, raw); err != nil {
			return err
		}
	}

	// To the end: a folder that was cut off must not pass for a smaller one.
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("read folder %s in the repository: %w", quote(path), err)
	}

	return nil
}

// enterEntries reads up to the first entry, and reports whether there is a list of
// them at all: an empty folder has none. The entries come before the summary, as
// kopia writes them; what is before them has no structure.
func enterEntries(dec *json.Decoder) (bool, error) {
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false, errors.Join(errors.New("it is no object"), err)
	}

	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return false, err
		}

		value, err := dec.Token()
		if err != nil {
			return false, err
		}

		if key != "entries" {
			continue
		}

		switch value {
		case nil:
			return false, nil
		case json.Delim('['):
			return true, nil
		}

		return false, errors.New("its entries are no list")
	}

	return false, errors.New("it has no entries")
}

// order checks the names in a folder: folders first, then the rest, each by name,
// as kopia writes them. So a name that comes twice is found without keeping them
// all, but for those of folders.
type order struct {
	folders map[string]struct{}
	last    string
	started bool
	rest    bool
}

var (
	errName  = errors.New("has a name that no file can have")
	errTwice = errors.New("comes twice, or out of order")
)

// next returns the raw name of the next entry.
func (o *order) next(e *snapshot.DirEntry) (string, error) {
	raw := contract.DecodeName(e.Name)
	if raw == "" || raw == "." || raw == ".." || strings.ContainsAny(raw, "/\x00") || contract.EncodeName(raw) != e.Name {
		return "", errName
	}

	folder := e.Type == snapshot.EntryTypeDirectory
	if !folder && !o.rest {
		o.rest, o.started = true, false
	}

	if folder && o.rest || o.started && e.Name <= o.last {
		return "", errTwice
	}

	o.last, o.started = e.Name, true

	if _, twice := o.folders[e.Name]; twice {
		return "", errTwice
	}

	if folder {
		if o.folders == nil {
			o.folders = map[string]struct{}{}
		}

		o.folders[e.Name] = struct{}{}
	}

	return raw, nil
}
