package beneath_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// olderKernel has the test binary run its tests as on a kernel before 5.6.
const olderKernel = "ESTIBA_TEST_OLDER_KERNEL"

// hideOpenat2 has the kernel answer openat2 with ENOSYS, for all threads and for good.
func hideOpenat2() error {
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_OPENAT2},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("set the filter: %w", errno)
	}
	return nil
}

// TestAnOlderKernelUnderAttack repeats the attacks, and the refusals, in a process
// for which the kernel has no openat2: that is found out, not only set by an option.
func TestAnOlderKernelUnderAttack(t *testing.T) {
	if os.Getenv(olderKernel) != "" {
		t.Skip("this is the older kernel")
	}
	seconds := "2"
	if attackDuration(t) >= time.Minute {
		seconds = "60"
	}
	again := []string{
		"TestAttackedReadingSeesNothingOutside", "TestAttackedWritingChangesNothingOutside",
		"TestASwappedEntryIsNotOpened", "TestNamesThatAreNoComponentsAreRefused", "TestRemoveAllStaysInside",
		"TestMountsInsideAVolumeAreNeitherEnteredNorReplaced", "TestACopyIsExact",
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.run=^("+strings.Join(again, "|")+")$/^with_openat2$")
	cmd.Env = append(os.Environ(), olderKernel+"=1", attackSeconds+"="+seconds)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range again {
		if os.Geteuid() == 0 {
			require.Contains(t, string(out), "--- PASS: "+name, "%s", out)
		}
	}
}
