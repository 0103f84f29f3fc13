package beneath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

const (
	// direntBuffer holds some 800 to 2,000 names; getdents64 takes what fits.
	direntBuffer = 64 << 10
	// direntHeader are the bytes of a linux_dirent64 before its name: inode,
	// offset (8 each), record length (2), type (1).
	direntHeader = 19
	direntLength = 16
)

// Lister reads a directory piece by piece, in the directory's own order, with
// memory for one piece however many entries there are. It is for one goroutine;
// several Listers of one Dir are independent of each other.
type Lister struct {
	vol   *volume
	names names
}

// List starts listing d. The Lister must be closed. It needs d only now.
func (d *Dir) List() (*Lister, error) {
	n, err := d.names()
	if err != nil {
		return nil, fmt.Errorf("list directory: %w", err)
	}
	return &Lister{vol: d.vol, names: n}, nil
}

// Next returns up to limit further entries, at least one, without "." and ".."; io.EOF
// when there are no more. Entries that vanished meanwhile are left out; an entry
// whose attributes could not be read has its Err set and is there.
func (l *Lister) Next(limit int) ([]Entry, error) {
	entries := make([]Entry, 0, max(limit, 1))
	for len(entries) < cap(entries) {
		name, err := l.names.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list directory: %w", err)
		}
		e, err := l.vol.statName(l.names.fd, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			e = Entry{Name: name, Err: fmt.Errorf("stat %q: %w", name, err)}
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil, io.EOF
	}
	return entries, nil
}

// Close ends the listing.
func (l *Lister) Close() error {
	if err := l.names.close(); err != nil {
		return fmt.Errorf("close listing: %w", err)
	}
	return nil
}

// names reads the names in a directory through a descriptor of its own.
type names struct {
	fd   int
	buf  []byte
	rest []byte
}

func (d *Dir) names() (names, error) {
	dirfd, err := d.desc.acquire()
	if err != nil {
		return names{}, err
	}
	defer d.desc.release()
	return d.vol.namesOf(dirfd, d.owner)
}

func (v *volume) namesOf(dirfd int, owner uint32) (names, error) {
	fd, err := v.openQuietly(dirfd, ".", safeFlags|unix.O_RDONLY|unix.O_DIRECTORY, owner)
	if err != nil {
		return names{}, err
	}
	return names{fd: fd}, nil
}

// next returns the next name, or io.EOF.
func (n *names) next() (string, error) {
	for {
		if len(n.rest) == 0 {
			if err := n.fill(); err != nil {
				return "", err
			}
		}
		name, err := n.take()
		if err != nil {
			return "", err
		}
		if name != "." && name != ".." {
			return name, checkName(name)
		}
	}
}

func (n *names) fill() error {
	if n.buf == nil {
		n.buf = make([]byte, direntBuffer)
	}
	got := 0
	err := uninterrupted(func() (err error) {
		got, err = unix.Getdents(n.fd, n.buf)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return io.EOF // The directory itself was removed: it is empty.
	}
	if err != nil {
		return fmt.Errorf("getdents: %w", err)
	}
	if got == 0 {
		return io.EOF
	}
	n.rest = n.buf[:got]
	return nil
}

// take cuts one record off. Entries with inode 0 are kept: some FUSE file systems have them.
func (n *names) take() (string, error) {
	if len(n.rest) < direntHeader {
		return "", errors.New("getdents: short record")
	}
	length := int(binary.NativeEndian.Uint16(n.rest[direntLength:]))
	if length < direntHeader || length > len(n.rest) {
		return "", errors.New("getdents: bad record length")
	}
	raw := n.rest[direntHeader:length]
	n.rest = n.rest[length:]
	if end := bytes.IndexByte(raw, 0); end >= 0 {
		raw = raw[:end]
	}
	return string(raw), nil
}

func (n *names) close() error {
	if n.fd < 0 {
		return nil
	}
	fd := n.fd
	n.fd = -1
	return closeFD(fd)
}
