package beneath

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// replaceTries bounds how often something is replaced that others put back.
const replaceTries = 64

// MakeDir makes the directory, or opens the one that is there. Anything else in
// the way is removed; a link is never followed. A new directory has mode 0700
// until SetAttrs. Errors: ErrMountPoint, ErrName, ErrBusy and those of the kernel.
func (d *Dir) MakeDir(name string) (*Dir, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return nil, fmt.Errorf("make directory %q: %w", name, err)
	}
	defer d.desc.release()
	for range replaceTries {
		fd, err := d.vol.openAt(dirfd, name, pathFlags|unix.O_DIRECTORY, 0)
		if err == nil {
			return d.adopt(fd, name)
		}
		if err := clearForDir(dirfd, name, err); err != nil {
			return nil, fmt.Errorf("make directory %q: %w", name, err)
		}
	}
	return nil, fmt.Errorf("make directory %q: %w", name, ErrBusy)
}

// adopt makes a Dir of a descriptor just opened, or closes it.
func (d *Dir) adopt(fd int, name string) (*Dir, error) {
	e, err := d.vol.statFD(fd)
	if err != nil {
		return nil, fmt.Errorf("make directory %q: %w", name, errors.Join(err, closeFD(fd)))
	}
	return d.newChild(fd, e.UID), nil
}

// clearForDir does what is to be done when name could not be opened as a directory:
// makes it, or removes what is in the way. Losing a race against others is no error.
func clearForDir(dirfd int, name string, openErr error) error {
	var err error
	switch {
	case errors.Is(openErr, unix.ENOENT):
		err = uninterrupted(func() error { return unix.Mkdirat(dirfd, name, 0o700) })
	case errors.Is(openErr, unix.ENOTDIR), errors.Is(openErr, unix.ELOOP):
		err = uninterrupted(func() error { return unix.Unlinkat(dirfd, name, 0) })
	default:
		return explainOpen(openErr)
	}
	switch {
	case err == nil, errors.Is(err, unix.EEXIST), errors.Is(err, unix.EISDIR):
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", ErrMountPoint, err)
	case errors.Is(err, unix.ENOENT):
		if errors.Is(openErr, unix.ENOENT) {
			return fmt.Errorf("parent directory: %w: %w", ErrVanished, err)
		}
		return nil
	}
	return err
}

// MakeSymlink makes a symbolic link with owner and times, replacing what is there.
// The target is raw bytes, not empty and without NUL. Errors are those of MakeDir,
// and ErrChanged.
func (d *Dir) MakeSymlink(name, target string, a Attrs) error {
	return d.makeSymlink(name, target, func(dirfd int, name string) error { return d.vol.setLinkAttrs(dirfd, name, a) })
}

// MakeBareSymlink is MakeSymlink for who may not set a link's attributes; see SetLinkAttrs.
func (d *Dir) MakeBareSymlink(name, target string) error {
	return d.makeSymlink(name, target, func(int, string) error { return nil })
}

// SetLinkAttrs sets the owner and times of a symbolic link. Errors: ErrChanged if it is none, ErrVanished, ErrName, ErrAttrs
// and those of the kernel.
func (d *Dir) SetLinkAttrs(name string, a Attrs) error {
	if err := checkName(name); err != nil {
		return err
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return fmt.Errorf("set attributes of link %q: %w", name, err)
	}
	defer d.desc.release()
	if err := d.vol.setLinkAttrs(dirfd, name, a); err != nil {
		return fmt.Errorf("set attributes of link %q: %w", name, err)
	}
	return nil
}

func (d *Dir) makeSymlink(name, target string, finish func(dirfd int, name string) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return fmt.Errorf("make link %q: target %q: %w", name, target, unix.EINVAL)
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return fmt.Errorf("make link %q: %w", name, err)
	}
	defer d.desc.release()
	if err := d.vol.makeSymlink(dirfd, name, target, finish); err != nil {
		return fmt.Errorf("make link %q: %w", name, err)
	}
	return nil
}

// makeSymlink makes the link under its name at once where nothing is: it is whole
// from the start, and a run repeated after a crash replaces it with another one.
func (v *volume) makeSymlink(dirfd int, name, target string, finish func(dirfd int, name string) error) error {
	err := symlinkAt(target, dirfd, name)
	if err == nil {
		if err := finish(dirfd, name); err != nil {
			return errors.Join(err, unlink(dirfd, name))
		}
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return explainOpen(err)
	}
	temp, err := v.withTempName(func(temp string) error { return symlinkAt(target, dirfd, temp) })
	if err != nil {
		return explainOpen(err)
	}
	if err := finish(dirfd, temp); err != nil {
		return errors.Join(err, unlink(dirfd, temp))
	}
	// Whoever takes the folder or the temporary link away meanwhile makes it vanish.
	return explainOpen(v.replace(dirfd, temp, name))
}

func symlinkAt(target string, dirfd int, name string) error {
	return uninterrupted(func() error { return unix.Symlinkat(target, dirfd, name) })
}

func (v *volume) setLinkAttrs(dirfd int, name string, a Attrs) error {
	fd, err := v.openAt(dirfd, name, pathFlags, 0)
	if err != nil {
		return explainOpen(err)
	}
	defer func() { _ = closeFD(fd) }() // O_PATH: nothing to lose.
	e, err := v.statFD(fd)
	if err != nil {
		return err
	}
	if e.Kind != KindSymlink {
		return ErrChanged
	}
	if err := setLinkOwner(fd, a); err != nil {
		return err
	}
	return setLinkTimes(fd, a)
}

// replace renames temp to its final name, atomically unless a directory
// is in the way, which is removed with all that is in it. It removes temp if it fails.
func (v *volume) replace(dirfd int, temp, name string) error {
	for range replaceTries {
		err := uninterrupted(func() error { return unix.Renameat(dirfd, temp, dirfd, name) })
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EISDIR):
			err = v.removeAll(dirfd, name)
		case errors.Is(err, unix.EBUSY):
			err = fmt.Errorf("%w: %w", ErrMountPoint, err)
		default:
			err = explainOpen(err)
		}
		if err != nil {
			return errors.Join(err, unlink(dirfd, temp))
		}
	}
	return errors.Join(ErrBusy, unlink(dirfd, temp))
}

// unlink removes a name; that it isn't there is no error.
func unlink(dirfd int, name string) error {
	err := uninterrupted(func() error { return unix.Unlinkat(dirfd, name, 0) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
