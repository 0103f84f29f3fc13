package worker

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// Offsets in struct seccomp_data, and the low half of the first argument: both
// processors that we build for are little-endian.
const (
	offsetNumber   = 0
	offsetArch     = 4
	offsetArgument = 16
	offsetSecond   = 24
	offsetThird    = 32
	// high is where the upper half of an argument is.
	high = 4
)

const (
	returnErrno = uint32(unix.SECCOMP_RET_ERRNO)
	refuse      = returnErrno | uint32(unix.EPERM)
	absent      = returnErrno | uint32(unix.ENOSYS)
	// stale is what kopia's cache takes for an answer when it marks a file as used: it would try again otherwise.
	stale   = returnErrno | uint32(unix.ESTALE)
	allow   = uint32(unix.SECCOMP_RET_ALLOW)
	killAll = uint32(unix.SECCOMP_RET_KILL_PROCESS)
)

// refused are the calls that no worker has any use for: files by handle, the
// network (the one socket it has is there already), other processes, mounts,
// the kernel's programmable parts, further programs.
func refused() []uint32 {
	return []uint32{
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
		unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE,
		unix.SYS_PROCESS_MRELEASE, unix.SYS_KCMP, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL,
		unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
		unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETPARAM,
		unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETAFFINITY,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
		unix.SYS_OPEN_TREE_ATTR, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_PERSONALITY, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
		unix.SYS_BPF, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN, unix.SYS_SECCOMP,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
		unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
		unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
		unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH,
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
	}
}

// attributesByPath are calls that show or change attributes of the file that a path leads to, which Landlock does not look
// at. No worker has any use for them; llistxattr, which gives names only, is how a backup finds what it has to say it
// left out. The same goes for what is done to files by their descriptors alone, and by more than one program.
func attributesByPath() []uint32 {
	return []uint32{
		unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FILE_SETATTR, unix.SYS_FILE_GETATTR,
		unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
		unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT,
		unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_FGETXATTR, unix.SYS_GETXATTRAT,
		unix.SYS_LISTXATTR, unix.SYS_FLISTXATTR, unix.SYS_LISTXATTRAT,
		unix.SYS_TRUNCATE, unix.SYS_MKNODAT, unix.SYS_IOCTL, unix.SYS_FLOCK,
	}
}

// filter is a program for the kernel's packet filter, in the making.
type filter struct{ code []unix.SockFilter }

func (f *filter) load(offset uint32) {
	f.code = append(f.code, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

func (f *filter) end(action uint32) {
	f.code = append(f.code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action})
}

// unless skips the next n instructions unless the loaded word passes the test.
func (f *filter) unless(test uint16, value uint32, n uint8) {
	f.code = append(f.code, unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jf: n, K: value})
}

// call answers one system call with an action.
func (f *filter) call(number, action uint32) {
	f.unless(unix.BPF_JEQ, number, 1)
	f.end(action)
}

// onThisProcess allows a call whose first argument is this process's ID, or one
// more value, and refuses it for all others.
func (f *filter) onThisProcess(number, pid, also uint32) {
	f.unless(unix.BPF_JEQ, number, 6)
	f.load(offsetArgument)
	f.unless(unix.BPF_JEQ, pid, 1)
	f.end(allow)
	f.unless(unix.BPF_JEQ, also, 1)
	f.end(allow)
	f.end(refuse)
}

// threadsOnly allows clone where it makes a thread, and refuses processes.
func (f *filter) threadsOnly() {
	f.unless(unix.BPF_JEQ, unix.SYS_CLONE, 4)
	f.load(offsetArgument)
	f.unless(unix.BPF_JSET, unix.CLONE_THREAD, 1)
	f.end(allow)
	f.end(refuse)
}

// attributes answers the calls that a restore needs to change attributes.
//
// It may do so by a descriptor that it has opened, which Landlock has let it, and not by a path or an O_PATH descriptor, which may be
// of any file. What opens a file for neither reading nor writing is refused, because Landlock lets that pass, and so is
// openat2, whose flags a filter can't see; package beneath then checks each name itself. Links have no
// other descriptors than O_PATH ones: they are for a worker that does only that.
func (f *filter) attributes(verb protocol.Verb) {
	if verb != protocol.VerbSetLinks {
		f.call(unix.SYS_FCHOWNAT, refuse)
	}

	if verb == protocol.VerbRestore {
		f.call(unix.SYS_OPENAT2, absent)
		f.notForNothing(unix.SYS_OPENAT, offsetThird)
		f.openHere()
		f.withoutPath(unix.SYS_UTIMENSAT)

		return
	}

	f.call(unix.SYS_FCHMOD, refuse)
	f.call(unix.SYS_FCHOWN, refuse)

	if verb != protocol.VerbSetLinks {
		f.call(unix.SYS_UTIMENSAT, stale)
	}
}

// notForNothing refuses to open a file for neither reading nor writing; the flags are the argument at the offset.
func (f *filter) notForNothing(number, flags uint32) {
	f.unless(unix.BPF_JEQ, number, 5)
	f.load(flags)
	f.code = append(f.code, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: unix.O_ACCMODE})
	f.unless(unix.BPF_JEQ, unix.O_ACCMODE, 1)
	f.end(refuse)
	f.end(allow)
}

// withoutPath allows a call whose second argument is no path.
func (f *filter) withoutPath(number uint32) {
	f.unless(unix.BPF_JEQ, number, 6)
	f.load(offsetSecond)
	f.unless(unix.BPF_JEQ, 0, 3)
	f.load(offsetSecond + high)
	f.unless(unix.BPF_JEQ, 0, 1)
	f.end(allow)
	f.end(stale)
}

// program makes the filter for a verb and a process.
func program(verb protocol.Verb, pid int) []unix.SockFilter {
	f := &filter{}

	f.load(offsetArch)
	f.unless(unix.BPF_JEQ, auditArch, 1)
	f.code = append(f.code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: 1})
	f.end(killAll)
	f.load(offsetNumber)

	if foreignNumbers != 0 {
		f.unless(unix.BPF_JGE, foreignNumbers, 1)
		f.end(refuse)
	}

	for _, n := range slices.Concat(refused(), refusedHere(), attributesByPath(), attributesByPathHere()) {
		f.call(n, refuse)
	}

	f.attributes(verb)

	// Its flags lie in memory, where a filter can't look. Callers fall back to clone.
	f.call(unix.SYS_CLONE3, absent)

	me := uint32(pid)
	f.onThisProcess(unix.SYS_KILL, me, me)
	f.onThisProcess(unix.SYS_TGKILL, me, me)
	f.onThisProcess(unix.SYS_PRLIMIT64, me, 0)
	f.threadsOnly()
	f.end(allow)

	return f.code
}

// refuseCalls puts the filter in force for all threads of this process.
func refuseCalls(verb protocol.Verb) error {
	code := program(verb, os.Getpid())
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}

	// With TSYNC, the other threads get the filter and no_new_privs in one step.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}

	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("put the filter of system calls in force: %w", errno)
	}

	if thread != 0 {
		return fmt.Errorf("put the filter of system calls in force: thread %d can't take it", thread)
	}

	return nil
}
