package worker

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// errNoLandlock: the kernel, its settings or a seccomp profile around us keep Landlock from us.
var errNoLandlock = errors.New("no Landlock")

const (
	readFolder = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	keepFiles  = readFolder | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	writeAll = keepFiles | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	startProgram = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
)

// handled is all that a version of Landlock can refuse; what no rule allows is refused.
func handled(abi int) unix.LandlockRulesetAttr {
	a := unix.LandlockRulesetAttr{
		Access_fs: unix.LANDLOCK_ACCESS_FS_EXECUTE | writeAll&^(unix.LANDLOCK_ACCESS_FS_REFER|unix.LANDLOCK_ACCESS_FS_TRUNCATE),
	}
	if abi >= 2 {
		a.Access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}

	if abi >= 3 {
		a.Access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}

	if abi >= 4 {
		a.Access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}

	if abi >= 5 {
		a.Access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}

	if abi >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}

	return a
}

// restrictFiles keeps the calling thread from all files but the volume, the
// cache and the program itself, and returns the version in force. The error wraps
// errNoLandlock where the kernel has none.
func restrictFiles(verb protocol.Verb, cacheDir string) (int, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, fmt.Errorf("%w: ask for its version: %w", errNoLandlock, errno)
	}

	abi := int(version)
	attr := handled(abi)

	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return 0, fmt.Errorf("%w: make a ruleset: %w", errNoLandlock, errno)
	}

	defer func() { _ = unix.Close(int(ruleset)) }()

	rules := &rules{ruleset: int(ruleset), handled: attr.Access_fs}
	if err := rules.addAll(verb, cacheDir); err != nil {
		return 0, err
	}

	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return 0, fmt.Errorf("%w: put the ruleset in force: %w", errNoLandlock, errno)
	}

	return abi, nil
}

type rules struct {
	ruleset int
	handled uint64
}

func (r *rules) addAll(verb protocol.Verb, cacheDir string) error {
	if err := r.addPath(self, startProgram); err != nil {
		return err
	}

	if err := r.addPath(cacheDir, keepFiles); err != nil {
		return err
	}

	switch verb {
	case protocol.VerbBackup, protocol.VerbSetLinks:
		return r.add(protocol.VolumeFD, readFolder)
	case protocol.VerbRestore:
		return r.add(protocol.VolumeFD, writeAll)
	default:
		return nil
	}
}

func (r *rules) addPath(path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s to allow it: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()

	return r.add(fd, access)
}

func (r *rules) add(fd int, access uint64) error {
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access & r.handled, Parent_fd: int32(fd)}

	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.ruleset),
		unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("add a Landlock rule for descriptor %d: %w", fd, errno)
	}

	return nil
}
