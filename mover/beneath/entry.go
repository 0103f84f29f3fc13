package beneath

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is the type of a file.
type Kind uint8

// The kinds. KindUnknown is that of an entry whose attributes could not be read.
const (
	KindUnknown Kind = iota
	KindRegular
	KindDirectory
	KindSymlink
	KindFIFO
	KindSocket
	KindCharDevice
	KindBlockDevice
)

// String names the kind in words.
func (k Kind) String() string {
	switch k {
	case KindRegular:
		return "regular file"
	case KindDirectory:
		return "directory"
	case KindSymlink:
		return "symbolic link"
	case KindFIFO:
		return "fifo"
	case KindSocket:
		return "socket"
	case KindCharDevice:
		return "character device"
	case KindBlockDevice:
		return "block device"
	case KindUnknown:
	}
	return "unknown"
}

func kindOf(mode uint16) Kind {
	switch uint32(mode) & unix.S_IFMT {
	case unix.S_IFREG:
		return KindRegular
	case unix.S_IFDIR:
		return KindDirectory
	case unix.S_IFLNK:
		return KindSymlink
	case unix.S_IFIFO:
		return KindFIFO
	case unix.S_IFSOCK:
		return KindSocket
	case unix.S_IFCHR:
		return KindCharDevice
	case unix.S_IFBLK:
		return KindBlockDevice
	}
	return KindUnknown
}

// Entry is what a directory holds under a name, as it was when it was looked at.
type Entry struct {
	// Name is the raw name in its directory; empty for the attributes of an open
	// root, directory or file.
	Name string
	// Kind is the file's type.
	Kind Kind
	// MountPoint says that something is mounted here. The other fields are then
	// those of what is mounted. On kernels before 5.8 it is found on opening only.
	MountPoint bool
	// Mode holds the permission bits with setuid, setgid and sticky (mask 07777).
	Mode uint32
	// UID and GID are the owner.
	UID, GID uint32
	// Nlink counts the names of the inode; above 1 a regular file is hard-linked.
	Nlink uint32
	// Size is in bytes; of a symbolic link it is the length of the target.
	Size int64
	// Blocks are allocated, in units of 512 bytes; see Sparse.
	Blocks int64
	// ModTime and ChangeTime have nanoseconds, where the file system has them.
	ModTime, ChangeTime time.Time
	// Dev and Ino identify the inode.
	Dev, Ino uint64
	// Rdev is the number of the device that a device node stands for.
	Rdev uint64
	// Err, if not nil, says why the attributes could not be read: then Name alone is valid.
	Err error
}

// Same reports whether both entries are the same object: device, inode and kind.
func (e Entry) Same(o Entry) bool {
	return e.Ino == o.Ino && e.Dev == o.Dev && e.Kind == o.Kind
}

// Unchanged reports whether both are the same object with nothing written to it
// and no attribute set in between, as far as size and times can tell.
func (e Entry) Unchanged(o Entry) bool {
	return e.Same(o) && e.Size == o.Size && e.ModTime.Equal(o.ModTime) && e.ChangeTime.Equal(o.ChangeTime)
}

// Sparse reports whether less is allocated than the size needs. Compressing file
// systems, and those that keep small files in the inode, make it true as well.
func (e Entry) Sparse() bool {
	return e.Kind == KindRegular && e.Blocks*512 < e.Size
}

// expect says whether the entry can be opened as a k.
func (e Entry) expect(k Kind) error {
	switch {
	case e.Err != nil:
		return e.Err
	case e.Kind != k:
		return fmt.Errorf("%w: is a %s, not a %s", ErrKind, e.Kind, k)
	case e.MountPoint:
		return ErrMountPoint
	}
	return checkName(e.Name)
}

func entryOf(name string, st *unix.Statx_t) Entry {
	return Entry{
		Name:       name,
		Kind:       kindOf(st.Mode),
		Mode:       uint32(st.Mode) & 0o7777,
		UID:        st.Uid,
		GID:        st.Gid,
		Nlink:      st.Nlink,
		Size:       int64(st.Size),
		Blocks:     int64(st.Blocks),
		ModTime:    time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)),
		ChangeTime: time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)),
		Dev:        unix.Mkdev(st.Dev_major, st.Dev_minor),
		Ino:        st.Ino,
		Rdev:       unix.Mkdev(st.Rdev_major, st.Rdev_minor),
	}
}
