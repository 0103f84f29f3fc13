package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// folder is an open folder of a file-system store. What is in it is reached by one
// name at a time, and never through a link: who may write to the store must not
// lead the daemon elsewhere.
type folder struct{ file *os.File }

// errOdd is for what is there and is neither a folder nor a file of ours.
var errOdd = errors.New("it is a link or no file of the store, and nothing is read or written through it: remove it")

// unfinishedMark is in the names of files that are being written, as in kopia's own storage.
const unfinishedMark = ".tmp."

// openRoot opens the folder that the administrator has named. Links on the way to
// it are the administrator's.
func openRoot(path string) (*folder, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err // it names the path
	}

	return &folder{f}, nil
}

func (f *folder) close() { _ = f.file.Close() } // opened for looking only

// path names an entry for people.
func (f *folder) path(name string) string { return f.file.Name() + "/" + name }

// call makes a system call on the folder's descriptor, which stays open meanwhile.
func (f *folder) call(op, name string, call func(fd int) error) error {
	if name == "" || name == ".." || strings.Contains(name, "/") {
		return &fs.PathError{Op: op, Path: f.path(name), Err: fs.ErrInvalid}
	}

	raw, err := f.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("%s %s: %w", op, f.path(name), err)
	}

	var failed error

	err = raw.Control(func(fd uintptr) {
		for {
			if failed = call(int(fd)); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})

	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", op, f.path(name), err)
	case failed != nil:
		return &fs.PathError{Op: op, Path: f.path(name), Err: failed}
	default:
		return nil
	}
}

func (f *folder) openat(op, name string, flags int, mode uint32) (file *os.File, err error) {
	err = f.call(op, name, func(fd int) error {
		opened, err := unix.Openat(fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err == nil {
			file = os.NewFile(uintptr(opened), f.path(name))
		}

		return err // call says what was attempted
	})

	return file, err
}

// again opens the folder itself anew, for a reading of its own.
func (f *folder) again() (*folder, error) {
	file, err := f.openat("open folder", ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}

	return &folder{file}, nil
}

// child opens a folder in the folder, and makes it where it is not there and wanted.
func (f *folder) child(name string, wanted bool) (*folder, error) {
	file, err := f.openat("open folder", name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) && wanted {
		if err := f.makeChild(name); err != nil {
			return nil, err
		}

		file, err = f.openat("open folder", name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}

	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, &fs.PathError{Op: "open folder", Path: f.path(name), Err: errOdd}
	}

	if err != nil {
		return nil, err
	}

	return &folder{file}, nil
}

func (f *folder) makeChild(name string) error {
	err := f.call("make folder", name, func(fd int) error { return unix.Mkdirat(fd, name, 0o700) })
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}

	return f.sync()
}

// stat looks at an entry, at a link itself.
func (f *folder) stat(name string) (info unix.Stat_t, err error) {
	err = f.call("look at", name, func(fd int) error {
		return unix.Fstatat(fd, name, &info, unix.AT_SYMLINK_NOFOLLOW)
	})

	return info, err
}

// statFile looks at a file.
func (f *folder) statFile(name string) (info unix.Stat_t, err error) {
	info, err = f.stat(name)
	if err == nil && info.Mode&unix.S_IFMT != unix.S_IFREG {
		err = &fs.PathError{Op: "look at", Path: f.path(name), Err: errOdd}
	}

	return info, err
}

// open opens a file for reading. What is no file is not opened, or if it was
// exchanged just now, without waiting for anybody at its other end.
func (f *folder) open(name string) (*os.File, int64, error) {
	if _, err := f.statFile(name); err != nil {
		return nil, 0, err
	}

	file, err := f.openat("open file", name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, 0, &fs.PathError{Op: "open file", Path: f.path(name), Err: errOdd}
	}

	if err != nil {
		return nil, 0, err
	}

	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open file", Path: f.path(name), Err: errOdd}
	}

	if err != nil {
		_ = file.Close()

		return nil, 0, err // it names the path
	}

	return file, info.Size(), nil
}

// put writes a file beside its place, syncs it, gives it its name in one step, and
// syncs the folder. What write fails with is given back as it is.
func (f *folder) put(name string, write func(io.Writer) error) error {
	return f.write(name, write, f.rename)
}

// putNew is put for a name that nothing has; fs.ErrExist where something has.
func (f *folder) putNew(name string, write func(io.Writer) error) error {
	return f.write(name, write, f.link)
}

func (f *folder) write(name string, write func(io.Writer) error, settle func(temporary, name string) error) error {
	temporary := name + unfinishedMark + strings.ToLower(rand.Text()[:16])

	file, err := f.openat("make file", temporary, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}

	err = write(file)
	if err == nil {
		err = file.Sync()
	}

	if closeErr := file.Close(); err == nil {
		err = closeErr
	}

	if err == nil {
		err = settle(temporary, name)
	}

	if err != nil {
		_ = f.remove(temporary) // a file left over is removed by a later listing

		return fmt.Errorf("write file %s: %w", f.path(name), err)
	}

	return f.sync()
}

func (f *folder) rename(temporary, name string) error {
	return f.call("name file", name, func(fd int) error { return unix.Renameat(fd, temporary, fd, name) })
}

// link names a file, unless the name is taken. File systems without links are only
// looked at first.
func (f *folder) link(temporary, name string) error {
	err := f.call("name file", name, func(fd int) error { return unix.Linkat(fd, temporary, fd, name, 0) })
	if err == nil {
		_ = f.remove(temporary) // it is hidden from listings

		return nil
	}

	if errors.Is(err, fs.ErrExist) {
		return err
	}

	if _, statErr := f.stat(name); statErr == nil {
		return &fs.PathError{Op: "name file", Path: f.path(name), Err: fs.ErrExist}
	}

	return f.rename(temporary, name)
}

func (f *folder) remove(name string) error {
	return f.call("remove file", name, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
}

// sync has what was made or named in the folder outlive a crash. Some file systems
// have no sync of folders; they are as safe as they can be.
func (f *folder) sync() error {
	err := f.file.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}

	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}

	return nil
}
