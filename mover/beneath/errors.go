package beneath

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The errors that callers tell apart with errors.Is. Where the kernel gave an
// errno for it, that is wrapped as well.
var (
	// ErrVanished says that an entry is not there any more under its name.
	ErrVanished = errors.New("entry has vanished")
	// ErrChanged says that another object than the listed one was met under an
	// entry's name. Dir.Lookup tells what is there now.
	ErrChanged = errors.New("entry was replaced meanwhile")
	// ErrMountPoint says that something is mounted on the entry. Mounts inside a
	// volume are neither entered nor replaced.
	ErrMountPoint = errors.New("entry is a mount point")
	// ErrName says that a name is no single path component: empty, ".", "..", or
	// with a '/' or a NUL in it.
	ErrName = errors.New("not a file name")
	// ErrKind says that a method was called for an entry of a kind it isn't for.
	ErrKind = errors.New("wrong kind of entry")
	// ErrAttrs says that the kernel took attributes without an error and did not
	// keep them, or that they cannot be expressed.
	ErrAttrs = errors.New("attributes not kept")
	// ErrBusy says that others changed what was to be replaced or removed faster
	// than this could be done.
	ErrBusy = errors.New("entry keeps being changed by others")
)

// checkName refuses what is no single path component.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("%q: %w", name, ErrName)
		}
	}
	return nil
}

// explainOpen names the errors of an open. None of these can be met
// when the object is still the one that was listed.
func explainOpen(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %w", ErrVanished, err)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", ErrChanged, err)
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%w: %w", ErrMountPoint, err)
	}
	return err
}
