package app

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// noLimit is where a number stands for no limit at all: cgroup v1 gives the largest multiple of a page.
const noLimit = 1 << 60

// containerMemory finds the container's memory limit, in bytes; 0 where there is none, or none that can be read.
func containerMemory() int64 {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}

		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && n < noLimit {
			return n
		}
	}

	return 0
}

// minBrokerMemory is what it takes to pass a pack of kopia on.
const minBrokerMemory = 32 << 20

// brokerMemory is what of the process's own share of memory the blobs on their
// way between stores and workers may take, in bytes: half, the rest is for everything else.
func brokerMemory(share int64) int64 { return max(share/2, minBrokerMemory) }

// boundMemory has this process collect its garbage in time to stay within its
// share, so that what it leaves to the workers is theirs. An eighth is for what
// the runtime does not count. Where the container has no limit there is nothing
// to keep within, and GOMEMLIMIT, where it was set, stays as it is.
func boundMemory(limit, share int64) {
	if limit > 0 && share > 0 && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(share / 8 * 7)
	}
}
