package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/estiba-dev/estiba/mover/engine"
)

// fileObjects are files below a folder. Every path is opened through an
// os.Root, so that a link in the store leads nowhere else.
type fileObjects struct{ root string }

// unfinished begins the names of files that are being written.
const unfinished = ".estiba-tmp-"

func (f *fileObjects) open() (*os.Root, error) {
	r, err := os.OpenRoot(f.root)
	if err != nil {
		return nil, fileError(fmt.Errorf("open the store's folder: %w", err))
	}

	return r, nil
}

func (f *fileObjects) list(_ context.Context, folder string) (Listing, error) {
	var l Listing

	r, err := f.open()
	if err != nil {
		return l, err
	}

	defer r.Close() //nolint:errcheck // opened for looking only

	entries, err := fs.ReadDir(r.FS(), path.Clean(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}

	if err != nil {
		return l, fileError(fmt.Errorf("read folder %s: %w", folder, err))
	}

	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), unfinished):
		case e.IsDir():
			l.Folders = append(l.Folders, e.Name())
		case e.Type().IsRegular():
			l.Files = append(l.Files, e.Name())
		}
	}

	slices.Sort(l.Folders)
	slices.Sort(l.Files)

	return l, nil
}

func (f *fileObjects) get(_ context.Context, name string) ([]byte, error) {
	r, err := f.open()
	if err != nil {
		return nil, err
	}

	defer r.Close() //nolint:errcheck // opened for looking only

	file, err := r.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrObjectNotFound
	}

	if err != nil {
		return nil, fileError(fmt.Errorf("open file: %w", err))
	}

	defer file.Close() //nolint:errcheck // opened for reading only

	content, err := io.ReadAll(io.LimitReader(file, MaxObjectSize+1))
	if err != nil {
		return nil, fileError(fmt.Errorf("read file: %w", err))
	}

	if len(content) > MaxObjectSize {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "file %s is larger than %d bytes", name, MaxObjectSize)
	}

	return content, nil
}

func (f *fileObjects) exists(_ context.Context, name string) (bool, error) {
	r, err := f.open()
	if err != nil {
		return false, err
	}

	defer r.Close() //nolint:errcheck // opened for looking only

	info, err := r.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}

	if err != nil {
		return false, fileError(fmt.Errorf("look at file: %w", err))
	}

	return info.Mode().IsRegular(), nil
}

// put writes beside the target, syncs, and gives the file its name in one step.
func (f *fileObjects) put(_ context.Context, name string, content []byte, onlyNew bool) error {
	r, err := f.open()
	if err != nil {
		return err
	}

	defer r.Close() //nolint:errcheck // what counts was synced

	folder := path.Dir(name)
	if err := r.MkdirAll(folder, 0o700); err != nil {
		return fileError(fmt.Errorf("make folder %s: %w", folder, err))
	}

	temporary := path.Join(folder, unfinished+rand.Text())
	if err := writeFile(r, temporary, content); err != nil {
		return err
	}

	if onlyNew {
		err = linkNew(r, temporary, name)
	} else {
		err = r.Rename(temporary, name)
	}

	if onlyNew || err != nil {
		_ = r.Remove(temporary) // a file left over is hidden from listings
	}

	if errors.Is(err, fs.ErrExist) {
		return ErrObjectExists
	}

	if err != nil {
		return fileError(fmt.Errorf("name file %s: %w", name, err))
	}

	return syncFolder(r, folder)
}

// linkNew names a file, unless the name is taken. File systems without links
// are only looked at first.
func linkNew(r *os.Root, temporary, name string) error {
	err := r.Link(temporary, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err // put says what was attempted
	}

	if _, statErr := r.Stat(name); statErr == nil {
		return fs.ErrExist
	}

	return r.Rename(temporary, name) // put says what was attempted
}

func writeFile(r *os.Root, name string, content []byte) error {
	file, err := r.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fileError(fmt.Errorf("make file %s: %w", name, err))
	}

	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}

	if closeErr := file.Close(); err == nil {
		err = closeErr
	}

	if err != nil {
		_ = r.Remove(name) // a file left over is hidden from listings

		return fileError(fmt.Errorf("write file %s: %w", name, err))
	}

	return nil
}

func syncFolder(r *os.Root, folder string) error {
	d, err := r.Open(folder)
	if err != nil {
		return fileError(fmt.Errorf("open folder %s: %w", folder, err))
	}

	defer d.Close() //nolint:errcheck // what counts is the sync

	if err := d.Sync(); err != nil {
		return fileError(fmt.Errorf("sync folder %s: %w", folder, err))
	}

	return nil
}
