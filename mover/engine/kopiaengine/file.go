package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// maxTarget is more than the longest link that a file system can hold.
	maxTarget = 64 << 10
	// span is the piece of a big file, in bytes, that one goroutine fetches before it
	// takes the next: some of repository.Splitter's pieces.
	span = 16 << 20
	// copyBuffer is the size of a buffer between repository and volume, in bytes.
	copyBuffer = 128 << 10
)

func unixMode(p snapshot.Permissions) uint32 {
	m := fs.FileMode(p)
	mode := uint32(m & fs.ModePerm)

	if m&fs.ModeSetuid != 0 {
		mode |= 0o4000
	}

	if m&fs.ModeSetgid != 0 {
		mode |= 0o2000
	}

	if m&fs.ModeSticky != 0 {
		mode |= 0o1000
	}

	return mode
}

func (w *restorer) symlink(ctx context.Context, d *beneath.Dir, e *snapshot.DirEntry, raw, path string) error {
	r, err := w.rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return fmt.Errorf("open link %s in the repository: %w", quote(path), err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	if r.Length() > maxTarget {
		return damaged(path, "is a link with %d bytes", r.Length())
	}

	target, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read link %s in the repository: %w", quote(path), err)
	}

	if err := w.makeLink(d, e, raw, path, string(target)); err != nil {
		return err
	}

	w.count.files.Add(1)
	w.dirs.totalFiles.Add(1)

	return nil
}

// makeLink makes a link, and sets its attributes or hands them over.
func (w *restorer) makeLink(d *beneath.Dir, e *snapshot.DirEntry, raw, path, target string) error {
	a := attrsOf(e)
	if w.linkAttributes == nil {
		return w.targetError(path, d.MakeSymlink(raw, target, a))
	}

	if err := d.MakeBareSymlink(raw, target); err != nil {
		return w.targetError(path, err)
	}

	return w.linkAttributes(engine.LinkAttributes{Path: []byte(path), UID: a.UID, GID: a.GID, ModTime: a.ModTime})
}

// file restores a regular file, or one more name of it.
func (w *restorer) file(ctx context.Context, d *beneath.Dir, e *snapshot.DirEntry, raw string, in *place) error {
	path := join(in.path, raw)
	if i := w.links.of(path); i != nil {
		return w.linked(ctx, i, d, e, raw, in)
	}

	_, err := w.newFile(ctx, d, e, raw, path)

	return err
}

// newFile writes a regular file, and returns what it is then. It has its name only when it is whole.
func (w *restorer) newFile(ctx context.Context, d *beneath.Dir, e *snapshot.DirEntry, raw, path string) (is beneath.Entry, err error) {
	r, err := w.rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return is, fmt.Errorf("open file %s in the repository: %w", quote(path), err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	if r.Length() != e.FileSize {
		return is, damaged(path, "has %d bytes of content and a size of %d", r.Length(), e.FileSize)
	}

	// Nothing is allocated beforehand: how much of it are holes only the content says.
	t, err := d.CreateFile(raw, 0)
	if err != nil {
		return is, w.targetError(path, err)
	}
	defer func() { err = errors.Join(err, w.targetError(path, t.Abort())) }()

	c := &content{restorer: w, file: t, entry: e, path: path}
	if err := c.copy(ctx, r); err != nil {
		return is, err
	}

	if is, err = t.Stat(); err != nil {
		return is, w.targetError(path, err)
	}

	if err := t.Commit(attrsOf(e)); err != nil {
		return is, w.targetError(path, err)
	}

	w.count.files.Add(1)

	return is, nil
}

// content is the content of one file on its way.
type content struct {
	*restorer

	file  *beneath.TempFile
	entry *snapshot.DirEntry
	path  string
	next  atomic.Int64 // the number of the span that nobody has taken yet
	ended atomic.Bool  // the last byte was written
}

// write writes what is not zeros. The file is a new one, so that what is left out reads as zeros
// and takes no room: a volume holds at most what it held when it was backed up.
func (c *content) write(p []byte, at int64) error {
	for from, to := range data(p, at, c.block) {
		if _, err := c.file.WriteAt(p[from:to], at+int64(from)); err != nil {
			return err
		}

		if at+int64(to) == c.entry.FileSize {
			c.ended.Store(true)
		}
	}

	return nil
}

// copy copies the content, a big one by several goroutines: the repository gives
// each reader one piece after the other, and waits for the store in between.
func (c *content) copy(ctx context.Context, r object.Reader) error {
	if c.entry.FileSize < span {
		return c.end(c.spans(ctx, r))
	}

	// A failure of one of them ends the others, and is this file's alone.
	g, ctx := errgroup.WithContext(ctx)

	// Each reader loads the list of the file's pieces, so there is one for each
	// goroutine and not for each span.
	for range min(c.entry.FileSize/span, int64(cap(c.slots))) {
		select {
		case c.slots <- struct{}{}:
			g.Go(func() error {
				defer func() { <-c.slots }()

				return c.help(ctx)
			})
		default:
		}
	}

	g.Go(func() error { return c.spans(ctx, r) })

	return c.end(g.Wait())
}

// end makes the file as long as it is to be.
func (c *content) end(err error) error {
	if err != nil || c.entry.FileSize == 0 || c.ended.Load() {
		return err
	}

	// It ends with zeros, which were not written.
	return c.targetError(c.path, c.file.Truncate(c.entry.FileSize))
}

func (c *content) help(ctx context.Context) error {
	r, err := c.rep.OpenObject(ctx, c.entry.ObjectID)
	if err != nil {
		return fmt.Errorf("open file %s in the repository: %w", quote(c.path), err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	return c.spans(ctx, r)
}

// spans copies spans until none is left.
func (c *content) spans(ctx context.Context, r object.Reader) error {
	buf := c.buffers.Get().(*[]byte) // Nothing else is put there.
	defer c.buffers.Put(buf)

	for {
		from := (c.next.Add(1) - 1) * span
		if from >= c.entry.FileSize {
			return nil
		}

		if _, err := r.Seek(from, io.SeekStart); err != nil {
			return fmt.Errorf("seek file %s in the repository: %w", quote(c.path), err)
		}

		if err := c.span(ctx, r, from, *buf); err != nil {
			return err
		}
	}
}

// span copies the bytes from an offset on, up to the end of its span.
func (c *content) span(ctx context.Context, r object.Reader, at int64, buf []byte) error {
	end := min(at+span, c.entry.FileSize)

	for at < end {
		if err := ctx.Err(); err != nil {
			return err
		}

		n, err := r.Read(buf[:min(int64(len(buf)), end-at)])
		if n > 0 {
			if err := c.write(buf[:n], at); err != nil {
				return c.targetError(c.path, err)
			}

			at += int64(n)
			c.count.bytes.Add(int64(n))
		}

		if err != nil && at < end {
			return fmt.Errorf("read file %s in the repository: %w", quote(c.path), err)
		}
	}

	return nil
}
