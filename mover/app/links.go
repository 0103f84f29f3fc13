package app

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

// setLinks sets the attributes of symbolic links, and of nothing else, beneath the root: a worker.SetLinks.
func setLinks(ctx context.Context, volume *os.File, leaveOut bool, next func() (engine.LinkAttributes, error)) ([]engine.Omission, error) {
	root, err := beneath.Open(volume, beneath.Options{})
	if err != nil {
		return nil, engine.Errorf(engine.CodeTargetUnwritable, "open the volume for its links: %w", err)
	}
	defer func() { _ = root.Close() }() // Synced below.

	at := &folder{root: root, dir: root.Dir()}
	defer func() { _ = at.dir.Close() }() // Nothing to lose.

	left := engine.Omission{Reason: engine.OmittedOwner}

	for {
		link, err := next()
		if errors.Is(err, io.EOF) {
			break
		}

		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}

		if err := at.set(link); err != nil && !leaveOut {
			return nil, engine.Errorf(engine.CodeTargetUnwritable, "set the attributes of link %.256q: %w", link.Path, err)
		} else if err != nil {
			leave(&left, link)
		}
	}

	if err := root.Sync(); err != nil {
		return nil, engine.Errorf(engine.CodeTargetUnwritable, "set the attributes of links: %w", err)
	}

	if left.Count == 0 {
		return nil, nil
	}

	return []engine.Omission{left}, nil
}

func leave(left *engine.Omission, link engine.LinkAttributes) {
	left.Count++

	if len(left.Examples) < engine.MaxExamples {
		left.Examples = append(left.Examples, strconv.Quote(string(link.Path)))
	}
}

// folder is the one that the last link was in; most are beside the one before.
type folder struct {
	root *beneath.Root
	path string
	dir  *beneath.Dir
}

func (f *folder) set(link engine.LinkAttributes) error {
	path, name := "", string(link.Path)
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		path, name = name[:i], name[i+1:]
	}

	if path != f.path {
		dir, err := f.root.OpenPath(path)
		if err != nil {
			return err
		}

		_ = f.dir.Close() // Nothing to lose; of the root it does nothing.
		f.path, f.dir = path, dir
	}

	return f.dir.SetLinkAttrs(name, beneath.Attrs{UID: link.UID, GID: link.GID, ModTime: link.ModTime})
}
