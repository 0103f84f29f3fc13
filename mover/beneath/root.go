package beneath

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Options change how a Root works. The zero value is right for production.
type Options struct {
	// NoOpenat2 goes without openat2, as on kernels before 5.6.
	NoOpenat2 bool
	// NoStatxMountID goes without STATX_MNT_ID, as on kernels before 5.8.
	NoStatxMountID bool
	// NoTmpfile goes without O_TMPFILE, as on NFS.
	NoTmpfile bool
	// Rand is the source of the random part of temporary names; nil means crypto/rand.
	Rand io.Reader
}

// Root is the top of a volume. Its methods may be called concurrently.
type Root struct {
	vol *volume
	dir *Dir
	// syncFD is open from the start, because syncfs reports the write errors
	// since its descriptor was opened, and on one that is not O_PATH.
	syncFD  descriptor
	syncErr error
}

// Open makes a Root of a directory's descriptor, which may be O_PATH and stays the
// caller's. The root itself may be a mount point; nothing beneath it may.
func Open(f *os.File, o Options) (*Root, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	var root *Root
	var rootErr error
	if err := conn.Control(func(fd uintptr) { root, rootErr = openRoot(int(fd), o) }); err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	if rootErr != nil {
		return nil, fmt.Errorf("open root: %w", rootErr)
	}
	return root, nil
}

func openRoot(fd int, o Options) (*Root, error) {
	run, err := tempRun(o.Rand)
	if err != nil {
		return nil, err
	}
	vol := &volume{openat2: !o.NoOpenat2, euid: uint32(os.Geteuid()), tempRun: run}
	vol.noTmpfile.Store(o.NoTmpfile)
	own, err := vol.openAt(fd, ".", pathFlags|unix.O_DIRECTORY, 0)
	if vol.openat2 && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)) {
		vol.openat2 = false // An old kernel, or a seccomp filter that doesn't know the call.
		own, err = vol.openAt(fd, ".", pathFlags|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return nil, err
	}
	e, err := vol.adopt(own, o.NoStatxMountID)
	if err == nil {
		err = checkProc(own)
	}
	if err != nil {
		return nil, errors.Join(err, closeFD(own))
	}
	r := &Root{vol: vol, dir: &Dir{vol: vol, owner: e.UID, desc: descriptor{fd: own}}}
	r.syncFD.fd, r.syncErr = vol.openQuietly(own, ".", safeFlags|unix.O_RDONLY|unix.O_DIRECTORY, e.UID)
	r.syncFD.closed = r.syncErr != nil
	return r, nil
}

// adopt takes the mount that fd lies on for the volume's.
func (v *volume) adopt(fd int, noStatxMountID bool) (Entry, error) {
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		return Entry{}, err
	}
	v.statxMountID = !noStatxMountID && st.Mask&unix.STATX_MNT_ID != 0
	v.mountID = st.Mnt_id
	if !v.statxMountID {
		id, err := fdinfoMountID(fd)
		if err != nil {
			return Entry{}, err
		}
		v.mountID = id
	}
	return entryOf("", &st), nil
}

// checkProc makes sure that /proc leads to an open object: its absence would look
// like a vanished file later.
func checkProc(fd int) error {
	var st unix.Statx_t
	err := uninterrupted(func() error { return unix.Statx(unix.AT_FDCWD, procPath(fd), 0, unix.STATX_INO, &st) })
	if err != nil {
		return fmt.Errorf("look through /proc, which is needed: %w", err)
	}
	return nil
}

func tempRun(r io.Reader) (string, error) {
	if r == nil {
		r = rand.Reader
	}
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return "", fmt.Errorf("random part of temporary names: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// Dir is the root directory. It belongs to the Root: closing it is harmless and
// does nothing; it ends with the Root.
func (r *Root) Dir() *Dir { return r.dir }

// Openat2 reports whether the kernel confines each open itself; otherwise each is
// checked afterwards.
func (r *Root) Openat2() bool { return r.vol.openat2 }

// Sync waits until all that was written to the file system is on stable storage,
// and reports errors of writing back since Open (Linux 5.8 and later do).
func (r *Root) Sync() error {
	if r.syncErr != nil {
		return fmt.Errorf("sync volume: open root for reading: %w", r.syncErr)
	}
	fd, err := r.syncFD.acquire()
	if err != nil {
		return fmt.Errorf("sync volume: %w", err)
	}
	defer r.syncFD.release()
	if err := noted(&syncs, func() error { return unix.Syncfs(fd) }); err != nil {
		return fmt.Errorf("sync volume: %w", err)
	}
	return nil
}

// Space is the room in a file system.
type Space struct {
	// TotalBytes is its size; FreeBytes is free; AvailableBytes is free for users
	// other than root.
	TotalBytes, FreeBytes, AvailableBytes int64
	// TotalInodes and FreeInodes count files; both are 0 where there is no limit.
	TotalInodes, FreeInodes int64
	// BlockSize is what is allocated at a time in bytes, as far as the file system says;
	// those of servers say what they like to be sent instead.
	BlockSize int64
}

// Statfs returns the room in the volume's file system.
func (r *Root) Statfs() (Space, error) {
	fd, err := r.dir.desc.acquire()
	if err != nil {
		return Space{}, fmt.Errorf("statfs volume: %w", err)
	}
	defer r.dir.desc.release()
	var st unix.Statfs_t
	if err := uninterrupted(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return Space{}, fmt.Errorf("statfs volume: %w", err)
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	return Space{
		TotalBytes:     int64(st.Blocks) * unit,
		FreeBytes:      int64(st.Bfree) * unit,
		AvailableBytes: int64(st.Bavail) * unit,
		TotalInodes:    int64(st.Files),
		FreeInodes:     int64(st.Ffree),
		BlockSize:      unit,
	}, nil
}

// Close closes the root's own descriptors. Directories and files opened beneath it
// are closed by who opened them. It may be called more than once.
func (r *Root) Close() error {
	return errors.Join(r.dir.desc.close(), r.syncFD.close())
}
