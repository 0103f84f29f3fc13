package beneath

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// resolve is what the kernel is to refuse on the way to a component.
	resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	// safeFlags are with every open: never a link, never waiting for a fifo's
	// other end, never a controlling terminal, never inherited.
	safeFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	// pathFlags open an object without its content.
	pathFlags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// statMask are the attributes asked for.
	statMask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID
	// openTries bounds the repetition after EAGAIN, which openat2 gives when a
	// rename or a mount disturbed it, and open when someone holds a lease.
	openTries = 128
)

// volume is what all descriptors of a Root share. Only the atomics change.
type volume struct {
	openat2      bool
	statxMountID bool
	mountID      uint64
	euid         uint32
	tempRun      string
	tempSeq      atomic.Uint64
	// noTmpfile is set when the file system has no O_TMPFILE.
	noTmpfile atomic.Bool
	// atimeRefused is set when O_NOATIME was refused for another user's file.
	atimeRefused atomic.Bool
}

// openAt opens the single component name, or ".", relative to dirfd.
func (v *volume) openAt(dirfd int, name string, flags int, mode uint32) (int, error) {
	for try := 0; ; try++ {
		fd := -1
		err := noted(&under, func() (err error) {
			fd, err = v.openOnce(dirfd, name, flags, mode)
			return err
		})
		if err == nil || (!errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)) || try == openTries {
			return fd, err
		}
	}
}

func (v *volume) openOnce(dirfd int, name string, flags int, mode uint32) (int, error) {
	if !v.openat2 {
		return unix.Openat(dirfd, name, flags, mode)
	}
	return unix.Openat2(dirfd, name, &unix.OpenHow{Flags: uint64(flags), Mode: uint64(mode), Resolve: resolve})
}

// openQuietly is openAt without an update of the access time where that is
// allowed: to the owner and with CAP_FOWNER.
func (v *volume) openQuietly(dirfd int, name string, flags int, owner uint32) (int, error) {
	if owner == v.euid || !v.atimeRefused.Load() {
		fd, err := v.openAt(dirfd, name, flags|unix.O_NOATIME, 0)
		if !errors.Is(err, unix.EPERM) {
			return fd, err
		}
		if owner != v.euid {
			v.atimeRefused.Store(true)
		}
	}
	return v.openAt(dirfd, name, flags, 0)
}

// statName looks at name without following it.
func (v *volume) statName(dirfd int, name string) (Entry, error) {
	var st unix.Statx_t
	err := uninterrupted(func() error {
		return unix.Statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, &st)
	})
	if err != nil {
		return Entry{}, err
	}
	e := entryOf(name, &st)
	e.MountPoint = v.statxMountID && st.Mnt_id != v.mountID
	return e, nil
}

// statFD looks at what fd is open on and refuses what lies on another mount.
func (v *volume) statFD(fd int) (Entry, error) {
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		return Entry{}, err
	}
	if err := v.checkMount(fd, &st); err != nil {
		return Entry{}, err
	}
	return entryOf("", &st), nil
}

func statx(fd int, st *unix.Statx_t) error {
	return uninterrupted(func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, statMask, st) })
}

func (v *volume) checkMount(fd int, st *unix.Statx_t) error {
	if v.statxMountID {
		if st.Mnt_id != v.mountID {
			return ErrMountPoint
		}
		return nil
	}
	if v.openat2 {
		return nil // RESOLVE_NO_XDEV has seen to it.
	}
	id, err := fdinfoMountID(fd)
	if err != nil {
		return err
	}
	if id != v.mountID {
		return ErrMountPoint
	}
	return nil
}

// verify compares what fd is open on with the entry it was opened for.
func (v *volume) verify(fd int, want Entry) (Entry, error) {
	got, err := v.statFD(fd)
	if err != nil {
		return Entry{}, err
	}
	if !got.Same(want) {
		return Entry{}, ErrChanged
	}
	got.Name = want.Name
	return got, nil
}

// openVerified opens e, relative to dirfd, with the given function and closes it
// again unless it is the object listed.
func (v *volume) openVerified(e Entry, open func() (int, error)) (int, Entry, error) {
	fd, err := open()
	if err != nil {
		return -1, Entry{}, explainOpen(err)
	}
	got, err := v.verify(fd, e)
	if err != nil {
		return -1, Entry{}, errors.Join(err, closeFD(fd))
	}
	return fd, got, nil
}

// fdinfoMountID is the way to a mount's ID on kernels whose statx has none (before
// 5.8). It is on the path of every open there, so it goes without os.File.
func fdinfoMountID(fd int) (uint64, error) {
	info, err := unix.Open("/proc/self/fdinfo/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read mount ID: %w", err)
	}
	defer func() { _ = closeFD(info) }() // Read only: nothing to lose.
	var buf [512]byte                    // pos, flags and mnt_id are the first lines.
	n, err := unix.Read(info, buf[:])
	if err != nil {
		return 0, fmt.Errorf("read mount ID: %w", err)
	}
	for line := range bytes.Lines(buf[:n]) {
		if rest, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			return strconv.ParseUint(string(bytes.TrimSpace(rest)), 10, 64)
		}
	}
	return 0, errors.New("read mount ID: not in /proc/self/fdinfo")
}

// procPath names what fd is open on to calls that have no variant for O_PATH
// descriptors. The kernel goes straight to the object: no name is looked up.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
