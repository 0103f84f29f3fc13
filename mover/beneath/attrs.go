package beneath

import (
	"errors"
	"fmt"
	"math"
	"time"

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

// setOwner gives the object to its owner. It comes before setMode: the kernel
// clears setuid, setgid and file capabilities on a change of owner.
func setOwner(fd int, a Attrs) error {
	if a.UID == math.MaxUint32 || a.GID == math.MaxUint32 {
		return fmt.Errorf("set owner %d:%d: %w", a.UID, a.GID, ErrAttrs)
	}
	err := uninterrupted(func() error { return unix.Fchownat(fd, "", int(a.UID), int(a.GID), unix.AT_EMPTY_PATH) })
	if err != nil {
		return fmt.Errorf("set owner %d:%d: %w", a.UID, a.GID, err)
	}
	return nil
}

// setMode sets the mode through /proc, since fchmod takes no O_PATH descriptor and
// fchmodat2 is refused by the seccomp filters of containers.
func setMode(fd int, mode uint32) error {
	return checkMode(fd, mode, uninterrupted(func() error { return unix.Chmod(procPath(fd), mode&0o7777) }))
}

// setFileMode is setMode for a descriptor that is not O_PATH.
func setFileMode(fd int, mode uint32) error {
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

// setTimes sets the times; it comes last, because all else changes them.
func setTimes(fd int, a Attrs) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, timespec(a.ModTime)}
	if !a.AccessTime.IsZero() {
		ts[0] = timespec(a.AccessTime)
	}
	err := uninterrupted(func() error { return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// Before Linux 5.8 the call has no AT_EMPTY_PATH.
		err = uninterrupted(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), ts, 0) })
	}
	if err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// SetAttrs gives the directory its attributes: owner, then mode, then times. It is
// to be called after everything in the directory has been made, since that changes its times.
func (d *Dir) SetAttrs(a Attrs) error {
	fd, err := d.desc.acquire()
	if err != nil {
		return fmt.Errorf("set attributes of directory: %w", err)
	}
	defer d.desc.release()
	if err := setOwner(fd, a); err != nil {
		return fmt.Errorf("set attributes of directory: %w", err)
	}
	if err := setMode(fd, a.Mode); err != nil {
		return fmt.Errorf("set attributes of directory: %w", err)
	}
	if err := setTimes(fd, a); err != nil {
		return fmt.Errorf("set attributes of directory: %w", err)
	}
	return nil
}
