package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sys/unix"
)

const (
	// filePage is after how many blobs a page of a folder's listing ends. A page
	// begins with a look at the folders above it, which many files are to share.
	filePage = 10_000
	// leftOver is the age from which a file that is being written is one whose writer has died.
	leftOver = 24 * time.Hour
)

// errPageFull ends a walk.
var errPageFull = errors.New("the page is full")

// fileWalk goes through the folders of a repository, each before those in it and
// these by name, from the one behind after.
type fileWalk struct {
	*fileStorage

	prefix blob.ID
	// after is where the folder was that was listed last; nil for none.
	after []string
	page  page
}

// listPage goes on behind the folder that after names; a page ends with a folder.
func (s *fileStorage) listPage(ctx context.Context, prefix blob.ID, after string) (page, error) {
	w := &fileWalk{fileStorage: s, prefix: prefix}

	if after != "" {
		w.after = []string{}
		if after != "/" {
			w.after = strings.Split(strings.Trim(after, "/"), "/")
		}
	}

	top, err := s.folder.again()
	if err != nil {
		return page{}, fileError(err)
	}

	defer top.close()

	if err := w.walk(ctx, top, nil); err != nil && !errors.Is(err, errPageFull) {
		return page{}, fileError(err)
	}

	return w.page, nil
}

// ListBlobs lists page by page.
func (s *fileStorage) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	return eachPage(ctx, s, prefix, callback)
}

func (w *fileWalk) walk(ctx context.Context, at *folder, where []string) error {
	if ctx.Err() != nil {
		return canceled(ctx, "list files")
	}

	names, err := at.file.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read folder %s: %w", at.file.Name(), err)
	}

	slices.Sort(names)

	isNew := w.after == nil || slices.Compare(where, w.after) > 0
	begins := strings.Join(where, "")

	var below []string

	for _, name := range names {
		pulseOf(ctx).beat()

		isFolder, err := w.look(at, begins, name, isNew)
		if err != nil {
			return err
		}

		if isFolder {
			below = append(below, name)
		}
	}

	if isNew && len(w.page.blobs) >= filePage {
		w.page.next = "/" + strings.Join(where, "/")

		return errPageFull
	}

	for _, name := range below {
		if err := w.descend(ctx, at, append(slices.Clone(where), name)); err != nil {
			return err
		}
	}

	return nil
}

// look takes an entry into the page where it is a blob, and reports whether it is a
// folder to go into. Whatever else lies there is nobody's.
func (w *fileWalk) look(at *folder, begins, name string, isNew bool) (isFolder bool, err error) {
	id, isBlob := strings.CutSuffix(begins+name, blobEnding)
	isLeft := !w.readOnly && strings.Contains(name, unfinishedMark)

	wanted := isLeft || w.leads(begins+name)
	if isBlob {
		wanted = isNew && w.wants(id)
	}

	if !wanted {
		return false, nil
	}

	info, err := at.stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was removed meanwhile
	}

	if err != nil {
		return false, err
	}

	kind := info.Mode & unix.S_IFMT

	switch {
	case isBlob:
		if kind == unix.S_IFREG {
			w.page.blobs = append(w.page.blobs, metadataOf(blob.ID(id), info))
		}

		return false, nil
	case isLeft:
		if kind == unix.S_IFREG && w.now().Sub(time.Unix(info.Mtim.Unix())) > leftOver {
			_ = at.remove(name) // it is tried again with the next listing
		}

		return false, nil
	case kind == unix.S_IFLNK && w.isShard(begins, name):
		// Passed over, all that lay behind it would look lost.
		return false, &fs.PathError{Op: "list folder", Path: at.path(name), Err: errOdd}
	default:
		return kind == unix.S_IFDIR, nil
	}
}

// wants reports whether a blob of that name is one of those that are listed.
func (w *fileWalk) wants(id string) bool {
	return strings.HasPrefix(id, string(w.prefix)) && ValidBlobID(blob.ID(id))
}

// leads reports whether a folder whose blobs begin in that way may hold some that are wanted.
func (w *fileWalk) leads(begins string) bool {
	n := min(len(begins), len(w.prefix))

	return begins[:n] == string(w.prefix[:n]) && validBlobPrefix(blob.ID(begins))
}

// isShard reports whether a folder of that name is one that blobs are spread over.
func (w *fileWalk) isShard(begins, name string) bool {
	for _, size := range w.shards.DefaultShards {
		if begins == "" {
			return len(name) == size
		}

		begins = begins[min(size, len(begins)):]
	}

	return false
}

// descend goes into a folder, unless all that is in it was listed before.
func (w *fileWalk) descend(ctx context.Context, at *folder, where []string) error {
	name := where[len(where)-1]
	isAbove := len(where) <= len(w.after) && slices.Equal(where, w.after[:len(where)])

	if slices.Compare(where, w.after) < 0 && !isAbove {
		return nil
	}

	sub, err := at.child(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was removed meanwhile
	}

	if err != nil {
		return err
	}

	defer sub.close()

	return w.walk(ctx, sub, where)
}
