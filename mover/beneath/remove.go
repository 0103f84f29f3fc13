package beneath

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// removePasses bounds how often a directory is emptied that others fill again.
	removePasses = 16
	// removeBuffer is for the names of one level, and held as long as there are levels
	// below it: a tree may be as deep as its maker likes.
	removeBuffer = 4 << 10
)

// RemoveAll removes what is under name, with all that is in it. That nothing is
// there is no error. Links are removed, not followed; a mount point stops it with
// ErrMountPoint. It takes one descriptor for each level of folders.
func (d *Dir) RemoveAll(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	defer d.desc.release()
	return d.vol.removeAll(dirfd, name)
}

// removeAll names in its error what could not be removed, and not the folders around it.
func (v *volume) removeAll(dirfd int, name string) error {
	for range removePasses {
		err := unlink(dirfd, name)
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: %w", ErrMountPoint, err)
		}
		if !errors.Is(err, unix.EISDIR) {
			return fmt.Errorf("remove %q: %w", name, err)
		}
		if err := v.empty(dirfd, name); err != nil {
			return err
		}
		err = uninterrupted(func() error { return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR) })
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTDIR):
			continue // Someone else was here.
		case errors.Is(err, unix.EBUSY):
			err = fmt.Errorf("%w: %w", ErrMountPoint, err)
		}
		return fmt.Errorf("remove %q: %w", name, err)
	}
	return fmt.Errorf("remove %q: %w", name, ErrBusy)
}

// empty removes what is in the directory name. That it is gone, or is no directory
// any more, is found by the caller.
func (v *volume) empty(dirfd int, name string) (err error) {
	fd, err := v.openAt(dirfd, name, safeFlags|unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil
	default:
		return fmt.Errorf("remove %q: %w", name, explainOpen(err))
	}
	in := names{fd: fd, buf: make([]byte, removeBuffer)}
	defer func() {
		if e := in.close(); e != nil && err == nil {
			err = fmt.Errorf("remove %q: %w", name, e)
		}
	}()
	if _, err := v.statFD(fd); err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	for {
		child, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("remove %q: %w", name, err)
		}
		if err := v.removeAll(fd, child); err != nil {
			return err
		}
	}
}

// SweepTemps removes the files and links with a temporary name (see IsTempName) of
// other runs from d itself, not from folders in it, and returns how many. No other
// restore may be writing to the volume. It is to be called before anything is
// restored into d, as a snapshot may hold such a name itself.
func (d *Dir) SweepTemps() (int, error) {
	list, err := d.names()
	if err != nil {
		return 0, fmt.Errorf("sweep temporary files: %w", err)
	}
	defer func() { _ = list.close() }() // Read only: nothing to lose.
	count := 0
	for {
		name, err := list.next()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, fmt.Errorf("sweep temporary files: %w", err)
		}
		if !IsTempName(name) || strings.HasPrefix(name, tempPrefix+d.vol.tempRun) {
			continue
		}
		switch err := unlink(list.fd, name); {
		case err == nil:
			count++
		case errors.Is(err, unix.EISDIR): // Not made by a restore.
		default:
			return count, fmt.Errorf("sweep temporary file %q: %w", name, err)
		}
	}
}
