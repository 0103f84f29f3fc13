package beneath

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attrs are the attributes given to what is restored.
type Attrs struct {
	// UID and GID are the owner. 4294967295 means "no change" to the kernel and is refused.
	UID, GID uint32
	// Mode holds permission bits with setuid, setgid and sticky (mask 07777). A
	// symbolic link has none of its own: there it is ignored.
	Mode uint32
	// ModTime is set with its nanoseconds.
	ModTime time.Time
	// AccessTime is left as it is when it is the zero time.
	AccessTime time.Time
}

// setOwner sets the object's owner. It comes before setMode: the kernel
// clears setuid, setgid and file capabilities on a change of owner. The descriptor is not O_PATH: a worker may
// change nothing by such a one, because those can be had of any file.
func setOwner(fd int, a Attrs) error {
	return checkOwner(a, func() error { return unix.Fchown(fd, int(a.UID), int(a.GID)) })
}

// setLinkOwner is setOwner for a symbolic link, which has O_PATH descriptors only.
func setLinkOwner(fd int, a Attrs) error {
	return checkOwner(a, func() error { return unix.Fchownat(fd, "", int(a.UID), int(a.GID), unix.AT_EMPTY_PATH) })
}

func checkOwner(a Attrs, set func() error) error {
	if a.UID == math.MaxUint32 || a.GID == math.MaxUint32 {
		return fmt.Errorf("set owner %d:%d: %w", a.UID, a.GID, ErrAttrs)
	}
	if err := uninterrupted(set); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", a.UID, a.GID, err)
	}
	return nil
}

// setMode sets the mode; the descriptor is not O_PATH.
func setMode(fd int, mode uint32) error {
	return checkMode(fd, mode, uninterrupted(func() error { return unix.Fchmod(fd, mode&0o7777) }))
}

// checkMode finds what chmod drops without an error: setgid, for who neither
// belongs to the group nor has CAP_FSETID.
func checkMode(fd int, mode uint32, err error) error {
	if err != nil {
		return fmt.Errorf("set mode %04o: %w", mode, err)
	}
	if mode&unix.S_ISGID == 0 {
		return nil
	}
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		return fmt.Errorf("set mode %04o: %w", mode, err)
	}
	if got := uint32(st.Mode) & 0o7777; got != mode&0o7777 {
		return fmt.Errorf("set mode %04o: %w: is %04o", mode, ErrAttrs, got)
	}
	return nil
}

// setTimes sets the times; it comes last, because all else changes them. The descriptor is not O_PATH.
func setTimes(fd int, a Attrs) error {
	ts := times(a)
	err := uninterrupted(func() error {
		// Without a path it is the descriptor's own; the package unix has no such call.
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0) //nolint:gosec // A system call takes the pointer.
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// setLinkTimes is setTimes for a symbolic link.
func setLinkTimes(fd int, a Attrs) error {
	ts := times(a)
	err := uninterrupted(func() error { return unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// Before Linux 5.8 the call has no AT_EMPTY_PATH.
		err = uninterrupted(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), ts[:], 0) })
	}
	if err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// times returns the access time and the time of change.
func times(a Attrs) [2]unix.Timespec {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, timespec(a.ModTime)}
	if !a.AccessTime.IsZero() {
		ts[0] = timespec(a.AccessTime)
	}
	return ts
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// SetAttrs sets the directory's attributes: owner, then mode, then times. It is
// to be called after everything in the directory has been made, since that changes its times.
func (d *Dir) SetAttrs(a Attrs) error {
	if err := d.setAttrs(a); err != nil {
		return fmt.Errorf("set attributes of directory: %w", err)
	}
	return nil
}

func (d *Dir) setAttrs(a Attrs) error {
	path, err := d.desc.acquire()
	if err != nil {
		return err
	}
	defer d.desc.release()
	fd, err := d.vol.openQuietly(path, ".", safeFlags|unix.O_RDONLY|unix.O_DIRECTORY, d.owner)
	if err != nil {
		return explainOpen(err)
	}
	defer func() { _ = closeFD(fd) }() // Open for reading.
	if err := setOwner(fd, a); err != nil {
		return err
	}
	if err := setMode(fd, a.Mode); err != nil {
		return err
	}
	return setTimes(fd, a)
}
