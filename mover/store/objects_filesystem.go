package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
)

// fileObjects are files below a folder, and like blobs they are reached through no link.
type fileObjects struct{ root string }

// unfinishedObject begins the names of files that earlier releases were writing when they ended.
const unfinishedObject = ".estiba-tmp-"

// open opens a folder below the root; it is the caller's to close.
func (f *fileObjects) open(name string, wanted bool) (*folder, error) {
	at, err := openRoot(f.root)
	if err != nil {
		return nil, fileError(fmt.Errorf("open the store's folder: %w", err))
	}

	for part := range strings.SplitSeq(path.Clean(name), "/") {
		if part == "." {
			continue
		}

		below, err := at.child(part, wanted)
		at.close()

		if err != nil {
			return nil, err // it names the path
		}

		at = below
	}

	return at, nil
}

// of opens the folder of a file.
func (f *fileObjects) of(name string, wanted bool) (*folder, string, error) {
	at, err := f.open(path.Dir(name), wanted)

	return at, path.Base(name), err
}

func (f *fileObjects) list(_ context.Context, folder string) (Listing, error) {
	var l Listing

	at, err := f.open(folder, false)
	if isAbsent(err) {
		return l, nil
	}

	if err != nil {
		return l, fileError(err)
	}

	defer at.close()

	names, err := at.file.Readdirnames(-1)
	if err != nil {
		return l, fileError(fmt.Errorf("read folder %s: %w", folder, err))
	}

	slices.Sort(names)

	for _, name := range names {
		if strings.HasPrefix(name, unfinishedObject) || strings.Contains(name, unfinishedMark) {
			continue
		}

		info, err := at.stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}

		if err != nil {
			return Listing{}, fileError(err)
		}

		switch info.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			l.Folders = append(l.Folders, name)
		case unix.S_IFREG:
			l.Files = append(l.Files, name)
		}
	}

	return l, nil
}

// isAbsent reports whether something is not there; a folder of the store itself that is
// not there is the store's failure, which has a code.
func isAbsent(err error) bool {
	var coded *engine.Error

	return errors.Is(err, fs.ErrNotExist) && !errors.As(err, &coded)
}

func (f *fileObjects) get(_ context.Context, name string) ([]byte, error) {
	at, base, err := f.of(name, false)
	if err == nil {
		defer at.close()

		return readObject(at, base)
	}

	if isAbsent(err) {
		return nil, ErrObjectNotFound
	}

	return nil, fileError(err)
}

func readObject(at *folder, name string) ([]byte, error) {
	file, _, err := at.open(name)
	if isAbsent(err) {
		return nil, ErrObjectNotFound
	}

	if err != nil {
		return nil, fileError(err)
	}

	defer file.Close() //nolint:errcheck // opened for reading only

	content, err := io.ReadAll(io.LimitReader(file, MaxObjectSize+1))
	if err != nil {
		return nil, fileError(fmt.Errorf("read file: %w", err))
	}

	if len(content) > MaxObjectSize {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "file %s is larger than %d bytes", file.Name(), MaxObjectSize)
	}

	return content, nil
}

func (f *fileObjects) exists(_ context.Context, name string) (bool, error) {
	at, base, err := f.of(name, false)
	if err == nil {
		defer at.close()

		_, err = at.statFile(base)
	}

	if isAbsent(err) {
		return false, nil
	}

	return err == nil, fileError(err)
}

func (f *fileObjects) put(_ context.Context, name string, content []byte, onlyNew bool) error {
	at, base, err := f.of(name, true)
	if err != nil {
		return fileError(err)
	}

	defer at.close()

	write := at.put
	if onlyNew {
		write = at.putNew
	}

	err = write(base, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(content))

		return err // put says what was attempted
	})
	if errors.Is(err, fs.ErrExist) {
		return ErrObjectExists
	}

	return fileError(err)
}
