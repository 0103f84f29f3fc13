package worker

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// capabilitySet is a set of capabilities by their numbers.
type capabilitySet uint64

func setOf(caps ...int) capabilitySet {
	var s capabilitySet
	for _, c := range caps {
		s |= 1 << c
	}

	return s
}

func (s capabilitySet) has(c int) bool { return s&(1<<c) != 0 }

// names returns the names of the capabilities that a worker may ever hold, and the numbers of others.
func (s capabilitySet) names() []string {
	known := map[int]string{
		unix.CAP_CHOWN:        "CHOWN",
		unix.CAP_DAC_OVERRIDE: "DAC_OVERRIDE",
		unix.CAP_FOWNER:       "FOWNER",
		unix.CAP_FSETID:       "FSETID",
	}

	var names []string

	for c := range 64 {
		switch name, ok := known[c]; {
		case !s.has(c):
		case ok:
			names = append(names, name)
		default:
			names = append(names, strconv.Itoa(c))
		}
	}

	return names
}

// wanted is what each direction needs. A backup reads files of any owner and
// mode through DAC_OVERRIDE, and not DAC_READ_SEARCH: with that,
// open_by_handle_at reads files of the host past every other fence. That
// DAC_OVERRIDE does not write is Landlock's part. Each of those of a restore is
// needed for what is kept of a volume: TestEachCapabilityOfAWorkerIsNeeded takes
// them away one by one.
func wanted(v protocol.Verb) capabilitySet {
	switch v {
	case protocol.VerbBackup:
		return setOf(unix.CAP_DAC_OVERRIDE)
	case protocol.VerbRestore:
		return setOf(unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID)
	case protocol.VerbSetLinks:
		return setOf(unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER)
	default:
		return 0
	}
}

// permitted returns the calling thread's permitted capabilities.
func permitted() (capabilitySet, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("get the worker's capabilities: %w", err)
	}

	return capabilitySet(data[0].Permitted) | capabilitySet(data[1].Permitted)<<32, nil
}

// keepCapabilities takes from the calling thread all capabilities but those of
// keep that it has. Executing a program does not bring them back: with
// no_new_privs, also user 0 gets no more than was permitted before.
func keepCapabilities(keep capabilitySet) error {
	have, err := permitted()
	if err != nil {
		return err
	}

	// The bounding set needs SETPCAP, which the daemon's pod does not have. It is
	// one more fence where it works.
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if keep.has(c) {
			continue
		}

		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}

	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}

	keep &= have
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Permitted: uint32(keep), Effective: uint32(keep)},
		{Permitted: uint32(keep >> 32), Effective: uint32(keep >> 32)},
	}

	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}

	return nil
}
