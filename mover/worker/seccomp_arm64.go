package worker

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	// foreignNumbers: arm64 has one set of numbers only.
	foreignNumbers = 0
)

func refusedHere() []uint32 { return nil }

func attributesByPathHere() []uint32 { return nil }

// openHere has nothing to do: there is openat only.
func (f *filter) openHere() {}
