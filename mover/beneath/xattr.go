package beneath

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Attributes returns the names of an entry's extended attributes, ACLs among them; an
// empty name stands for d itself. None is no error, whatever the reason: the file
// system has no such thing, or the entry vanished. No link is followed: the path
// is d's own descriptor and one component.
func (d *Dir) Attributes(name string) ([]string, error) {
	if name != "" {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	fd, err := d.desc.acquire()
	if err != nil {
		return nil, fmt.Errorf("list attributes of %q: %w", name, err)
	}
	defer d.desc.release()
	names, err := listAttributes(procPath(fd) + "/" + name)
	if err != nil {
		return nil, fmt.Errorf("list attributes of %q: %w", name, err)
	}
	return names, nil
}

// listAttributes does not follow a link in the last component of path.
func listAttributes(path string) ([]string, error) {
	for room := 256; ; {
		buf := make([]byte, room)
		n := 0
		err := uninterrupted(func() (err error) {
			n, err = unix.Llistxattr(path, buf)
			return err
		})
		switch {
		case err == nil:
			return splitNames(buf[:n]), nil
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return nil, nil
		case !errors.Is(err, unix.ERANGE) || room >= 1<<20: // 64 KiB is all that Linux gives (XATTR_LIST_MAX).
			return nil, err
		}
		room *= 16
	}
}

// splitNames takes the names apart, each of which ends with a NUL.
func splitNames(list []byte) []string {
	var names []string
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names
}
