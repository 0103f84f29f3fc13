package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// spooled is a blob's content on disk: of one that is too large for the room. It is
// a kopia blob.Bytes.
type spooled struct {
	file *os.File
	size int64
}

// spool copies size bytes of r into a file without a name in dir.
func spool(dir string, r io.Reader, size int64) (*spooled, error) {
	file, err := nameless(dir)
	if err != nil {
		return nil, fmt.Errorf("make a file for %d bytes in %s: %w", size, dir, err)
	}

	s := &spooled{file: file, size: size}
	if _, err := io.CopyN(file, r, size); err != nil {
		s.close()

		return nil, fmt.Errorf("copy %d bytes into a file in %s: %w", size, dir, err)
	}

	return s, nil
}

// nameless makes a file that goes with its descriptor.
func nameless(dir string) (*os.File, error) {
	file, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err == nil {
		return file, nil
	}

	// Some file systems have no files without a name.
	file, err = os.CreateTemp(dir, "blob-")
	if err != nil {
		return nil, err // it names the path
	}

	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}

	return file, nil
}

func (s *spooled) close() { _ = s.file.Close() } // it is gone with that

// Length of the content, in bytes.
func (s *spooled) Length() int { return int(s.size) }

// WriteTo writes the content to w.
func (s *spooled) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.NewSectionReader(s.file, 0, s.size)) // the writer's own error, as io.WriterTo asks
}

// Reader reads the content from its start.
func (s *spooled) Reader() io.ReadSeekCloser {
	return sectionReader{io.NewSectionReader(s.file, 0, s.size)}
}

type sectionReader struct{ *io.SectionReader }

func (sectionReader) Close() error { return nil }
