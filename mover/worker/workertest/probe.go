package workertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HandleFile is a file in the volume of a probe: four bytes for the type of a file
// handle, and the handle, for the probe to open.
const HandleFile = "handle"

// WriteHandle writes the handle of a file into the volume of a probe, and returns it.
func WriteHandle(volume, file string) (unix.FileHandle, error) {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, file, 0)
	if err != nil {
		return h, fmt.Errorf("get the handle of %s: %w", file, err)
	}

	content := binary.LittleEndian.AppendUint32(nil, uint32(h.Type()))

	return h, os.WriteFile(filepath.Join(volume, HandleFile), append(content, h.Bytes()...), 0o600)
}

// Try tries what a worker can and can't do, from the inside; also to read more files.
func Try(root *os.File, cacheDir string, files ...string) Findings {
	f := Findings{
		Attempts:    map[string]string{},
		Environment: os.Environ(),
		Bounding:    bounding(),
		Descriptors: descriptors(),
	}

	f.Effective, f.Permitted, f.Inheritable = capabilities()
	f.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)

	for name, attempt := range attempts(root, cacheDir) {
		f.Attempts[name] = text(attempt())
	}

	for _, file := range files {
		f.Attempts["read "+file] = text(read(unix.AT_FDCWD, file))
	}

	return f
}

func text(err error) string {
	var errno unix.Errno

	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return err.Error()
	}
}

func attempts(root *os.File, cacheDir string) map[string]func() error {
	a := map[string]func() error{
		"read /etc/hostname":      func() error { return read(unix.AT_FDCWD, "/etc/hostname") },
		"list /proc":              func() error { return read(unix.AT_FDCWD, "/proc") },
		"write the cache":         func() error { return os.WriteFile(filepath.Join(cacheDir, "new"), []byte("x"), 0o600) },
		"rename in the cache":     func() error { return rename(cacheDir) },
		"read the cache's parent": func() error { return read(unix.AT_FDCWD, filepath.Dir(cacheDir)) },
		"make a socket":           func() error { return socket(unix.AF_INET) },
		"make a unix socket":      func() error { return socket(unix.AF_UNIX) },
		"make a pair of sockets":  func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"signal the daemon":       func() error { return unix.Kill(os.Getppid(), 0) },
		"signal a thread of it":   func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) },
		"signal itself":           func() error { return unix.Kill(os.Getpid(), 0) },
		"limit the daemon":        func() error { return unix.Prlimit(os.Getppid(), unix.RLIMIT_CPU, &unix.Rlimit{Cur: 1, Max: 1}, nil) },
		"trace the daemon":        func() error { return unix.PtraceAttach(os.Getppid()) },
		"open the daemon":         func() error { _, err := unix.PidfdOpen(os.Getppid(), 0); return err },
		"fork":                    fork,
		"clone3":                  func() error { return raw(unix.SYS_CLONE3) },
		"execute itself":          func() error { return unix.Exec("/proc/self/exe", []string{"x"}, nil) },
		"unshare":                 func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"io_uring":                func() error { return raw(unix.SYS_IO_URING_SETUP) },
		"bpf":                     func() error { return raw(unix.SYS_BPF) },
		"x32 getpid":              func() error { return raw(0x40000000 + 39) },
	}

	if root != nil {
		volume(a, int(root.Fd()))
	}

	return a
}

// volume adds what is tried on the volume. It holds the files "secret" (mode
// 0000, of another user) and "own" (of user 0).
func volume(a map[string]func() error, root int) {
	a["read a file of another user"] = func() error { return read(root, "secret") }
	a["read the volume's parent"] = func() error { return read(root, "..") }
	a["read a sibling of the volume"] = func() error { return read(root, "../sibling/secret") }
	a["write a new file"] = func() error { return write(root, "new", unix.O_CREAT|unix.O_EXCL) }
	a["write an old file"] = func() error { return write(root, "secret", 0) }
	a["truncate an old file"] = func() error { return write(root, "secret", unix.O_TRUNC) }
	a["remove a file"] = func() error { return unix.Unlinkat(root, "victim", 0) }
	a["attack a sibling"] = func() error { attack(root, "../sibling/secret"); return nil }
	a["link a sibling in"] = func() error { return linkAcross(root, "../sibling/secret", "linked") }
	a["link out to a sibling"] = func() error { return linkAcross(root, "own", "../sibling/linked") }
	attributes(a, root)
	a["make a device"] = func() error { return unix.Mknodat(root, "null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }
	a["make a handle"] = func() error { _, _, err := unix.NameToHandleAt(root, "own", 0); return err }
	a["open a handle"] = func() error { return openHandle(root) }
}

// linkAcross makes a second name of a file in another tree. Landlock, or the kernel where that lies on another mount, says that this
// is across devices; both come to the same.
func linkAcross(dir int, name, as string) error {
	err := unix.Linkat(dir, name, dir, as, 0)
	if errors.Is(err, unix.EXDEV) {
		return unix.EACCES
	}

	return err
}

// attributes adds what is tried on the attributes of the volume's files.
func attributes(a map[string]func() error, root int) {
	a["chmod own"] = func() error { return unix.Fchmodat(root, "own", 0o640, 0) }
	a["chmod by descriptor link"] = func() error { return chmodByLink(root, "own") }
	a["chown own"] = func() error { return unix.Fchownat(root, "own", 7, 7, unix.AT_SYMLINK_NOFOLLOW) }
	a["chmod by descriptor"] = func() error { return by(root, unix.O_RDONLY, func(fd int) error { return unix.Fchmod(fd, 0o600) }) }
	a["chown by descriptor"] = func() error { return by(root, unix.O_RDONLY, func(fd int) error { return unix.Fchown(fd, 0, 0) }) }
	a["times by descriptor"] = func() error { return by(root, unix.O_RDONLY, times) }
	a["times by path"] = func() error { return unix.UtimesNanoAt(root, "own", []unix.Timespec{{}, {}}, unix.AT_SYMLINK_NOFOLLOW) }
	a["chown by O_PATH descriptor"] = func() error {
		return by(root, unix.O_PATH, func(fd int) error { return unix.Fchownat(fd, "", 0, 0, unix.AT_EMPTY_PATH) })
	}
	a["times by O_PATH descriptor"] = func() error {
		return by(root, unix.O_PATH, func(fd int) error { return unix.UtimesNanoAt(fd, "", []unix.Timespec{{}, {}}, unix.AT_EMPTY_PATH) })
	}
	a["open for nothing"] = func() error { return by(root, unix.O_ACCMODE, func(int) error { return nil }) }
	a["open for nothing, unseen"] = func() error { _, err := openForNothing(root, "own"); return err }
	a["lock own"] = func() error {
		return by(root, unix.O_RDONLY, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX) })
	}
	a["flags of own"] = func() error {
		return by(root, unix.O_RDONLY, func(fd int) error { _, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); return err })
	}
	a["watch the volume"] = func() error { return raw(unix.SYS_INOTIFY_INIT1) }
	a["set flags by path"] = func() error { return raw(unix.SYS_FILE_SETATTR) }
	a["read an attribute by path"] = func() error { _, err := unix.Getxattr("/", "user.x", nil); return err }
	a["set an attribute"] = func() error { return xattr(root, "attributed") }
}

// by opens the file "own" and has something done by the descriptor.
func by(root, flags int, do func(fd int) error) error {
	fd, err := unix.Openat(root, "own", flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()

	return do(fd)
}

func times(fd int) error {
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, 0, 0, 0, 0); errno != 0 {
		return errno
	}

	return nil
}

// openForNothing opens a file for neither reading nor writing, by flags that a filter of system calls can't see.
func openForNothing(dir int, name string) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_ACCMODE | unix.O_CLOEXEC})
}

// attack tries all that could change the attributes of a file that is none of the worker's.
func attack(dir int, name string) {
	set := func(fd int) {
		_ = unix.Fchmod(fd, 0o777)
		_ = unix.Fchown(fd, 1, 1)
		_ = times(fd)
		_ = unix.Fsetxattr(fd, "user.estiba", []byte("x"), 0)
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x40) // no dump
		_ = unix.Fchownat(fd, "", 1, 1, unix.AT_EMPTY_PATH)
		_ = unix.UtimesNanoAt(fd, "", []unix.Timespec{{}, {}}, unix.AT_EMPTY_PATH)

		link := fmt.Sprintf("/proc/self/fd/%d", fd)
		_ = unix.Chmod(link, 0o777)
		_ = unix.Chown(link, 1, 1)
		_ = unix.Setxattr(link, "user.estiba", []byte("x"), 0)
	}

	for _, flags := range []int{unix.O_RDONLY, unix.O_PATH, unix.O_ACCMODE} {
		if fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0); err == nil {
			set(fd)
			_ = unix.Close(fd)
		}
	}

	if fd, err := openForNothing(dir, name); err == nil {
		set(fd)
		_ = unix.Close(fd)
	}

	_ = unix.Fchmodat(dir, name, 0o777, 0)
	_ = unix.Fchmodat(dir, name, 0o777, unix.AT_SYMLINK_NOFOLLOW)
	_ = unix.Fchownat(dir, name, 1, 1, 0)
	_ = unix.Fchownat(dir, name, 1, 1, unix.AT_EMPTY_PATH)
	_ = unix.UtimesNanoAt(dir, name, []unix.Timespec{{}, {}}, unix.AT_EMPTY_PATH)
	_ = unix.Futimesat(dir, name, []unix.Timeval{{}, {}})
	_ = unix.Linkat(dir, name, dir, "own-now", 0)
}

func rename(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}

	if err := os.WriteFile(filepath.Join(dir, "moved"), nil, 0o600); err != nil {
		return fmt.Errorf("write: %w", err)
	}

	return os.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, "folder", "moved"))
}

func read(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}

	return unix.Close(fd)
}

func write(dir int, name string, flags int) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0o600)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}

	return unix.Close(fd)
}

func chmodByLink(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()

	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o600)
}

func xattr(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()

	return unix.Fsetxattr(fd, "user.estiba", []byte("x"), 0)
}

// openHandle opens the handle that lies in the volume, if there is one.
func openHandle(root int) error {
	kind, handle := int32(1), make([]byte, 8)

	if fd, err := unix.Openat(root, HandleFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
		content := make([]byte, 132)
		n, _ := unix.Read(fd, content)
		_ = unix.Close(fd)

		if n > 4 {
			kind, handle = int32(binary.LittleEndian.Uint32(content)), content[4:n]
		}
	}

	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(kind, handle), unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}

	return unix.Close(fd)
}

func socket(family int) error {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}

	return unix.Close(fd)
}

// fork asks for a process by clone, and ends it at once should there be one.
func fork() error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}

	if pid == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}

	return nil
}

func raw(number uintptr) error {
	if _, _, errno := unix.Syscall(number, 0, 0, 0); errno != 0 {
		return errno
	}

	return nil
}

func capabilities() (effective, permitted, inheritable uint64) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

	var data [2]unix.CapUserData
	if err := unix.Capget(&header, (*unix.CapUserData)(unsafe.Pointer(&data))); err != nil {
		return ^uint64(0), ^uint64(0), ^uint64(0)
	}

	join := func(low, high uint32) uint64 { return uint64(low) | uint64(high)<<32 }

	return join(data[0].Effective, data[1].Effective),
		join(data[0].Permitted, data[1].Permitted),
		join(data[0].Inheritable, data[1].Inheritable)
}

func bounding() uint64 {
	var set uint64

	for c := range 64 {
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && on == 1 {
			set |= 1 << c
		}
	}

	return set
}

// descriptors lists the open descriptors, without those of Go's own poller.
func descriptors() []int {
	var open []int

	for fd := range 256 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || anonymous(fd) {
			continue
		}

		open = append(open, fd)
	}

	return open
}

// anonymous recognizes epoll and event descriptors: they have no link, no size and no type.
func anonymous(fd int) bool {
	var st unix.Stat_t

	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == 0
}
