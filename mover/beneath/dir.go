package beneath

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Its methods may be called concurrently, Close too:
// what is called afterwards fails with os.ErrClosed. An open Dir keeps the volume
// from being unmounted.
type Dir struct {
	vol   *volume
	owner uint32
	child bool
	desc  descriptor
}

// Close closes the directory. Closing it again, or the one of Root.Dir, does nothing.
func (d *Dir) Close() error {
	if !d.child {
		return nil
	}
	if err := d.desc.close(); err != nil {
		return fmt.Errorf("close directory: %w", err)
	}
	return nil
}

// Stat returns the directory's own attributes as they are now.
func (d *Dir) Stat() (Entry, error) {
	fd, err := d.desc.acquire()
	if err != nil {
		return Entry{}, fmt.Errorf("stat directory: %w", err)
	}
	defer d.desc.release()
	e, err := d.vol.statFD(fd)
	if err != nil {
		return Entry{}, fmt.Errorf("stat directory: %w", err)
	}
	return e, nil
}

// Lookup returns what is there under a name now; ErrVanished if nothing is. After
// ErrChanged it is the way to try again.
func (d *Dir) Lookup(name string) (Entry, error) {
	if err := checkName(name); err != nil {
		return Entry{}, err
	}
	fd, err := d.desc.acquire()
	if err != nil {
		return Entry{}, fmt.Errorf("look up %q: %w", name, err)
	}
	defer d.desc.release()
	e, err := d.vol.statName(fd, name)
	if err != nil {
		return Entry{}, fmt.Errorf("look up %q: %w", name, explainOpen(err))
	}
	return e, nil
}

// OpenDir opens a directory that was listed in d. Errors: ErrVanished, ErrChanged,
// ErrMountPoint, ErrKind, those of the kernel, and e.Err if it is set.
func (d *Dir) OpenDir(e Entry) (*Dir, error) {
	if err := e.expect(KindDirectory); err != nil {
		return nil, fmt.Errorf("open directory %q: %w", e.Name, err)
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return nil, fmt.Errorf("open directory %q: %w", e.Name, err)
	}
	defer d.desc.release()
	fd, got, err := d.vol.openVerified(e, func() (int, error) {
		return d.vol.openAt(dirfd, e.Name, pathFlags|unix.O_DIRECTORY, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open directory %q: %w", e.Name, err)
	}
	return d.newChild(fd, got.UID), nil
}

func (d *Dir) newChild(fd int, owner uint32) *Dir {
	return &Dir{vol: d.vol, owner: owner, child: true, desc: descriptor{fd: fd}}
}

// OpenFile opens a regular file that was listed in d for reading. It never waits
// for a fifo that was put there. Errors are those of OpenDir.
func (d *Dir) OpenFile(e Entry) (*File, error) {
	if err := e.expect(KindRegular); err != nil {
		return nil, fmt.Errorf("open file %q: %w", e.Name, err)
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return nil, fmt.Errorf("open file %q: %w", e.Name, err)
	}
	defer d.desc.release()
	fd, got, err := d.vol.openVerified(e, func() (int, error) {
		fd, err := d.vol.openQuietly(dirfd, e.Name, safeFlags|unix.O_RDONLY, e.UID)
		if errors.Is(err, unix.EAGAIN) {
			return d.vol.openLeased(dirfd, e)
		}
		return fd, err
	})
	if err != nil {
		return nil, fmt.Errorf("open file %q: %w", e.Name, err)
	}
	return &File{vol: d.vol, entry: got, desc: descriptor{fd: fd}}, nil
}

// openLeased opens a file that someone holds a lease on (Samba does): the open has
// to wait until the holder lets go, for /proc/sys/fs/lease-break-time at most.
// Waiting is safe only for what is known to be a regular file, so the object is
// pinned and verified first.
func (v *volume) openLeased(dirfd int, e Entry) (int, error) {
	pin, _, err := v.openVerified(e, func() (int, error) { return v.openAt(dirfd, e.Name, pathFlags, 0) })
	if err != nil {
		return -1, err
	}
	defer func() { _ = closeFD(pin) }() // O_PATH: nothing to lose.
	fd := -1
	err = uninterrupted(func() (err error) {
		fd, err = unix.Open(procPath(pin), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		return err
	})
	return fd, err
}

// ReadLink reads the target of a symbolic link that was listed in d: raw bytes.
// Errors are those of OpenDir.
func (d *Dir) ReadLink(e Entry) (string, error) {
	if err := e.expect(KindSymlink); err != nil {
		return "", fmt.Errorf("read link %q: %w", e.Name, err)
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", e.Name, err)
	}
	defer d.desc.release()
	fd, _, err := d.vol.openVerified(e, func() (int, error) { return d.vol.openAt(dirfd, e.Name, pathFlags, 0) })
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", e.Name, err)
	}
	defer func() { _ = closeFD(fd) }() // O_PATH: nothing to lose.
	target, err := readLink(fd, int(e.Size))
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", e.Name, err)
	}
	return target, nil
}

// readLink reads the whole target; some file systems give no size for a link.
func readLink(fd, size int) (string, error) {
	for room := max(size+1, 128); ; room *= 2 {
		buf := make([]byte, room)
		n := 0
		err := uninterrupted(func() (err error) {
			n, err = unix.Readlinkat(fd, "", buf)
			return err
		})
		if err != nil {
			return "", err
		}
		if n < room {
			return string(buf[:n]), nil
		}
	}
}
