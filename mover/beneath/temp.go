package beneath

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// tempPrefix starts the names of what a restore has under way; the run (16
	// hexadecimal digits), '-' and a number follow.
	tempPrefix  = ".estiba-tmp-"
	tempRunLen  = 16
	tempSeqBase = 36
	// preallocateFrom is the size in bytes from which room for a file is
	// allocated beforehand, so that a full volume shows before the work.
	preallocateFrom = 1 << 20
)

// IsTempName reports whether a name is one that a restore of any run gives to
// what isn't finished.
func IsTempName(name string) bool {
	rest, ok := strings.CutPrefix(name, tempPrefix)
	if !ok || len(rest) < tempRunLen+2 || rest[tempRunLen] != '-' {
		return false
	}
	if strings.Trim(rest[:tempRunLen], "0123456789abcdef") != "" {
		return false
	}
	_, err := strconv.ParseUint(rest[tempRunLen+1:], tempSeqBase, 64)
	return err == nil
}

// withTempName calls f with fresh names until one is free.
func (v *volume) withTempName(f func(temp string) error) (string, error) {
	for range replaceTries {
		temp := tempPrefix + v.tempRun + "-" + strconv.FormatUint(v.tempSeq.Add(1), tempSeqBase)
		if err := f(temp); !errors.Is(err, unix.EEXIST) {
			return temp, err
		}
	}
	return "", ErrBusy
}

// TempFile is a file that is being written and has no name yet, or a temporary one.
// Write is for one goroutine; WriteAt may be called concurrently.
type TempFile struct {
	dir  *Dir
	name string
	hint int64

	mu   sync.RWMutex
	fd   int    // -1 when closed
	temp string // its temporary name; empty without one
	pos  int64
}

// CreateFile starts a regular file that is to be called name. Nothing is to be seen
// under that name before Commit. size in bytes is what will be written; 0 if that
// is unknown, or if the file has holes. Commit or Abort must be called, both
// before d is closed.
func (d *Dir) CreateFile(name string, size int64) (*TempFile, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dirfd, err := d.desc.acquire()
	if err != nil {
		return nil, fmt.Errorf("create file %q: %w", name, err)
	}
	defer d.desc.release()
	fd, temp, err := d.vol.createTemp(dirfd)
	if err != nil {
		return nil, fmt.Errorf("create file %q: %w", name, explainOpen(err))
	}
	t := &TempFile{dir: d, name: name, fd: fd, temp: temp}
	if size >= preallocateFrom {
		if err := t.preallocate(size); err != nil {
			return nil, fmt.Errorf("create file %q: %w", name, errors.Join(err, t.drop(dirfd)))
		}
	}
	return t, nil
}

// createTemp makes a file without a name, or one with a temporary name where the
// file system cannot do that.
func (v *volume) createTemp(dirfd int) (fd int, temp string, err error) {
	if !v.noTmpfile.Load() {
		fd, err = v.openAt(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			v.noTmpfile.Store(true)
		case errors.Is(err, unix.EPERM):
			// ext4 says this, not ENOENT, of a directory that has been removed.
			if isRemoved(dirfd) {
				err = unix.ENOENT
			}
			return -1, "", err
		default:
			return fd, "", err
		}
	}
	temp, err = v.withTempName(func(temp string) (err error) {
		fd, err = v.openAt(dirfd, temp, safeFlags|unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		return err
	})
	return fd, temp, err
}

// isRemoved reports whether the directory has no name any more.
func isRemoved(dirfd int) bool {
	var st unix.Statx_t
	return statx(dirfd, &st) == nil && st.Nlink == 0
}

// preallocate reserves the room without changing the size; where the file system
// cannot, writing will tell.
func (t *TempFile) preallocate(size int64) error {
	err := uninterrupted(func() error { return unix.Fallocate(t.fd, unix.FALLOC_FL_KEEP_SIZE, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("allocate %d bytes: %w", size, err)
	}
	t.hint = size
	return nil
}

// Write implements io.Writer, one piece after the other.
func (t *TempFile) Write(p []byte) (int, error) {
	n, err := t.WriteAt(p, t.pos)
	t.pos += int64(n)
	return n, err
}

// WriteAt implements io.WriterAt. A full volume is an error that wraps unix.ENOSPC
// (or unix.EDQUOT).
func (t *TempFile) WriteAt(p []byte, off int64) (int, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.fd < 0 {
		return 0, fmt.Errorf("write file %q: %w", t.name, os.ErrClosed)
	}
	done := 0
	for done < len(p) {
		n := 0
		err := uninterrupted(func() (err error) {
			n, err = unix.Pwrite(t.fd, p[done:], off+int64(done))
			return err
		})
		if err != nil {
			return done, fmt.Errorf("write file %q at %d: %w", t.name, off+int64(done), err)
		}
		done += n
	}
	return done, nil
}

// Truncate sets the size in bytes; growing makes a hole at the end.
func (t *TempFile) Truncate(size int64) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.fd < 0 {
		return fmt.Errorf("truncate file %q: %w", t.name, os.ErrClosed)
	}
	if err := uninterrupted(func() error { return unix.Ftruncate(t.fd, size) }); err != nil {
		return fmt.Errorf("truncate file %q to %d: %w", t.name, size, err)
	}
	return nil
}

// Commit sets owner, mode and times, in this order, and then gives the file its
// name, atomically replacing a file, link or other thing that is there; a directory
// there is removed with all that is in it. If it fails, the file is not under its
// name, and Abort is to be called; when it was the attributes that could not be
// set, Commit may be called again with others. Errors: ErrMountPoint, ErrAttrs, ErrBusy, ErrVanished
// (the directory is gone) and those of the kernel: EPERM says that a capability is missing.
func (t *TempFile) Commit(a Attrs) error {
	dirfd, err := t.dir.desc.acquire()
	if err != nil {
		return fmt.Errorf("commit file %q: %w", t.name, err)
	}
	defer t.dir.desc.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return fmt.Errorf("commit file %q: %w", t.name, os.ErrClosed)
	}
	if err := t.finish(a); err != nil {
		return fmt.Errorf("commit file %q: %w", t.name, err)
	}
	if err := t.publish(dirfd); err != nil {
		return fmt.Errorf("commit file %q: %w", t.name, err)
	}
	return nil
}

// finish sets all attributes of the open file but its name.
func (t *TempFile) finish(a Attrs) error {
	if t.hint > 0 {
		if err := t.trim(); err != nil {
			return err
		}
	}
	if err := setOwner(t.fd, a); err != nil {
		return err
	}
	if err := setMode(t.fd, a.Mode); err != nil {
		return err
	}
	return setTimes(t.fd, a)
}

// trim releases what was allocated beyond the end.
func (t *TempFile) trim() error {
	var st unix.Statx_t
	if err := statx(t.fd, &st); err != nil {
		return err
	}
	if int64(st.Size) >= t.hint {
		return nil
	}
	return uninterrupted(func() error { return unix.Ftruncate(t.fd, int64(st.Size)) })
}

// publish names the file and closes it.
func (t *TempFile) publish(dirfd int) error {
	v := t.dir.vol
	if t.temp == "" {
		err := linkFD(t.fd, dirfd, t.name)
		if err == nil {
			return t.closeFD()
		}
		if !errors.Is(err, unix.EEXIST) {
			return explainOpen(err)
		}
		temp, err := v.withTempName(func(temp string) error { return linkFD(t.fd, dirfd, temp) })
		if err != nil {
			return explainOpen(err)
		}
		t.temp = temp
	}
	// Network file systems report failed writes on closing: before the name is given.
	if err := t.closeFD(); err != nil {
		return err
	}
	temp := t.temp
	t.temp = ""
	return v.replace(dirfd, temp, t.name)
}

// linkFD names an unnamed file. The way through /proc needs no capability;
// AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH before Linux 6.10.
func linkFD(fd, dirfd int, name string) error {
	return uninterrupted(func() error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), dirfd, name, unix.AT_SYMLINK_FOLLOW)
	})
}

func (t *TempFile) closeFD() error {
	fd := t.fd
	t.fd = -1
	return closeFD(fd)
}

// Abort throws the file away. After Commit has returned nil, and after Abort, it
// does nothing.
func (t *TempFile) Abort() error {
	dirfd, err := t.dir.desc.acquire()
	if err != nil {
		dirfd = -1
	} else {
		defer t.dir.desc.release()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.drop(dirfd); err != nil {
		return fmt.Errorf("abort file %q: %w", t.name, err)
	}
	return nil
}

// drop closes the file and removes its temporary name, if it has one and dirfd is open.
func (t *TempFile) drop(dirfd int) error {
	var errs []error
	if t.fd >= 0 {
		errs = append(errs, t.closeFD())
	}
	if t.temp != "" && dirfd >= 0 {
		errs = append(errs, unlink(dirfd, t.temp))
		t.temp = ""
	}
	return errors.Join(errs...)
}
