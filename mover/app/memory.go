package app

import (
	"os"
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
