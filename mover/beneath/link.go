package beneath

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenPath opens the directory at a raw path below the root, name by name; the empty path is the root itself. Close must be
// called. Errors are those of Lookup and OpenDir.
func (r *Root) OpenPath(path string) (*Dir, error) {
	dir := r.Dir()
	if path == "" {
		return dir, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := dir.step(name)
		_ = dir.Close() // O_PATH: nothing to lose.
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

func (d *Dir) step(name string) (*Dir, error) {
	e, err := d.Lookup(name)
	if err != nil {
		return nil, err
	}
	return d.OpenDir(e)
}

// Link makes name in d a second name of the file target in the directory in, which must be the expected object,
// replacing what is there. Errors: ErrChanged if another object bears the target's name, ErrVanished, ErrName,
// ErrMountPoint, ErrBusy and those of the kernel: EMLINK, EPERM, EXDEV and EOPNOTSUPP say that this file, or the
// file system, takes no further name.
func (d *Dir) Link(name string, in *Dir, target string, expected Entry) error {
	if err := errors.Join(checkName(name), checkName(target)); err != nil {
		return err
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return fmt.Errorf("link %q: %w", name, err)
	}
	defer d.desc.release()
	from, err := in.desc.acquire()
	if err != nil {
		return fmt.Errorf("link %q: %w", name, err)
	}
	defer in.desc.release()
	if err := d.vol.link(dirfd, name, from, target, expected); err != nil {
		return fmt.Errorf("link %q: %w", name, err)
	}
	return nil
}

func (v *volume) link(dirfd int, name string, from int, target string, expected Entry) error {
	// To rename a name of an object over another of its names does nothing, and leaves both.
	if e, err := v.statName(dirfd, name); err == nil && e.Same(expected) {
		return nil
	}
	temp, err := v.withTempName(func(temp string) error {
		return uninterrupted(func() error { return unix.Linkat(from, target, dirfd, temp, 0) })
	})
	if err != nil {
		return explainOpen(err)
	}
	// The target's name may have been given to something else meanwhile.
	e, err := v.statName(dirfd, temp)
	if err == nil && !e.Same(expected) {
		err = ErrChanged
	}
	if err != nil {
		return errors.Join(explainOpen(err), unlink(dirfd, temp))
	}
	return v.replace(dirfd, temp, name)
}

// Stat returns the attributes that the file has now. It has no name yet, and keeps its inode when it gets it.
func (t *TempFile) Stat() (Entry, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.fd < 0 {
		return Entry{}, fmt.Errorf("stat file %q: %w", t.name, os.ErrClosed)
	}
	e, err := t.dir.vol.statFD(t.fd)
	if err != nil {
		return Entry{}, fmt.Errorf("stat file %q: %w", t.name, err)
	}
	return e, nil
}
