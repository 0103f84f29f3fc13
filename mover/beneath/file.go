package beneath

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// File is a regular file open for reading. Read and Seek share one position and
// are for one goroutine at a time; ReadAt, Stat and Close may be called concurrently.
type File struct {
	vol   *volume
	entry Entry
	desc  descriptor
	pos   int64
}

// Entry returns the attributes that the file had when it was opened.
func (f *File) Entry() Entry { return f.entry }

// Stat returns the attributes that the file has now, under the name it was opened by.
func (f *File) Stat() (Entry, error) {
	fd, err := f.desc.acquire()
	if err != nil {
		return Entry{}, fmt.Errorf("stat file %q: %w", f.entry.Name, err)
	}
	defer f.desc.release()
	e, err := f.vol.statFD(fd)
	if err != nil {
		return Entry{}, fmt.Errorf("stat file %q: %w", f.entry.Name, err)
	}
	e.Name = f.entry.Name
	return e, nil
}

// Changed reports whether the file was written to since it was opened: what has
// been read may be half of an old and half of a new content.
func (f *File) Changed() (bool, error) {
	e, err := f.Stat()
	if err != nil {
		return false, err
	}
	return !e.Unchanged(f.entry), nil
}

// Read implements io.Reader.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.readOnce(p, f.pos)
	f.pos += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := f.readOnce(p[done:], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (f *File) readOnce(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	fd, err := f.desc.acquire()
	if err != nil {
		return 0, fmt.Errorf("read file %q: %w", f.entry.Name, err)
	}
	defer f.desc.release()
	n := 0
	err = uninterrupted(func() (err error) {
		n, err = unix.Pread(fd, p, off)
		return err
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("read file %q at %d: %w", f.entry.Name, off, err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Seek implements io.Seeker. io.SeekEnd is relative to the size the file has now.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	base := int64(0)
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		base = f.pos
	case io.SeekEnd:
		e, err := f.Stat()
		if err != nil {
			return 0, err
		}
		base = e.Size
	default:
		return 0, fmt.Errorf("seek file %q: whence %d", f.entry.Name, whence)
	}
	if base+offset < 0 {
		return 0, fmt.Errorf("seek file %q: %w", f.entry.Name, errors.New("negative position"))
	}
	f.pos = base + offset
	return f.pos, nil
}

// Close closes the file. Closing it again does nothing.
func (f *File) Close() error {
	if err := f.desc.close(); err != nil {
		return fmt.Errorf("close file %q: %w", f.entry.Name, err)
	}
	return nil
}
