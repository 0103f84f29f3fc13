package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	kfs "github.com/kopia/kopia/fs"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// listed is how many entries of a folder are asked for at a time.
	listed = 256
	// ordered is how many entries of a folder are put in order before they are
	// uploaded, so that they lie in the repository as a restore, which goes by name,
	// will want them.
	ordered = 8192
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// directory implements kfs.Directory. It is opened when kopia enters it and closed
// when kopia is done with all below it.
type directory struct {
	node

	own *beneath.Dir
}

// newRoot returns the root of a volume.
func newRoot(src *source, root *beneath.Root) (*directory, error) {
	e, err := root.Dir().Stat()
	if err != nil {
		return nil, engine.Errorf(engine.CodeSourceUnreadable, "stat the volume's root: %w", err)
	}

	src.noteAttributes(".", root.Dir(), "")

	return &directory{node: node{src: src, entry: e}, own: root.Dir()}, nil
}

// Size is nothing: that of a folder is the file system's affair, and would make
// equal folders differ.
func (d *directory) Size() int64 { return 0 }

func (d *directory) Mode() fs.FileMode { return d.node.Mode() | fs.ModeDir }

func (d *directory) IsDir() bool { return true }

func (d *directory) SupportsMultipleIterations() bool { return true }

func (d *directory) open() error {
	if d.own != nil {
		return nil
	}

	own, err := opened(&d.node, d.dir.OpenDir)
	if err != nil {
		return d.fail(err)
	}

	d.own = own

	return nil
}

func (d *directory) Close() {
	if d.own != nil {
		_ = d.own.Close() // It was open for reading: there is nothing to lose.
	}
}

// Iterate implements kfs.Directory.
func (d *directory) Iterate(context.Context) (kfs.DirectoryIterator, error) {
	if err := d.open(); err != nil {
		return nil, err
	}

	l, err := d.own.List()
	if err != nil {
		return nil, d.fail(err)
	}

	return &iterator{dir: d, lister: l, links: linkLines{to: d.src.links, omitted: &d.src.omitted, folder: d.path}}, nil
}

// Child implements kfs.Directory.
func (d *directory) Child(_ context.Context, name string) (kfs.Entry, error) {
	if err := d.open(); err != nil {
		return nil, err
	}

	e, err := d.own.Lookup(contract.DecodeName(name))
	if errors.Is(err, beneath.ErrVanished) {
		return nil, kfs.ErrEntryNotFound
	}

	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", name, err)
	}

	if child := d.child(e); child != nil {
		return child, nil
	}

	return nil, kfs.ErrEntryNotFound
}

// child returns what kopia is to see of an entry; nil for what is left out and counted.
func (d *directory) child(e beneath.Entry) kfs.Entry {
	n := node{src: d.src, dir: d.own, entry: e, name: contract.EncodeName(e.Name), path: join(d.path, e.Name)}

	if e.Err != nil {
		_ = n.fail(e.Err) // Kopia needs no word of it: the source has it.

		return nil
	}

	if reason, omit := omittedKind(e); omit {
		d.src.omitted.add(reason, n.path)

		return nil
	}

	d.src.note(n.path, e)
	d.src.noteAttributes(n.path, d.own, e.Name)

	switch e.Kind {
	case beneath.KindDirectory:
		return &directory{node: n}
	case beneath.KindSymlink:
		return &symlink{n}
	default:
		return &file{n}
	}
}

func omittedKind(e beneath.Entry) (engine.OmissionReason, bool) {
	if e.MountPoint {
		return engine.OmittedMount, true
	}

	switch e.Kind {
	case beneath.KindRegular, beneath.KindDirectory, beneath.KindSymlink:
		return "", false
	case beneath.KindSocket:
		return engine.OmittedSocket, true
	case beneath.KindFIFO:
		return engine.OmittedFIFO, true
	default:
		return engine.OmittedDevice, true
	}
}

// iterator implements kfs.DirectoryIterator.
type iterator struct {
	dir    *directory
	lister *beneath.Lister
	ahead  []beneath.Entry
	links  linkLines
}

func (i *iterator) Next(context.Context) (kfs.Entry, error) {
	for {
		if len(i.ahead) == 0 {
			if err := i.look(); err != nil {
				return nil, i.dir.fail(err)
			}
		}

		if len(i.ahead) == 0 {
			return nil, nil // That is how kopia wants to hear of the end.
		}

		e := i.ahead[0]
		i.ahead = i.ahead[1:]

		if child := i.dir.child(e); child != nil {
			i.dir.src.allocated.Add(allocated(e))
			i.links.add(e)

			return child, nil
		}
	}
}

// look lists the next entries, and puts them in order.
func (i *iterator) look() error {
	i.ahead = nil

	for len(i.ahead) < ordered {
		entries, err := i.lister.Next(listed)
		if isEOF(err) {
			break
		}

		if err != nil {
			return err
		}

		i.ahead = append(i.ahead, entries...)
	}

	slices.SortFunc(i.ahead, func(a, b beneath.Entry) int { return strings.Compare(a.Name, b.Name) })

	return nil
}

func (i *iterator) Close() {
	i.links.flush()

	_ = i.lister.Close() // Open for reading: there is nothing to lose.
}
