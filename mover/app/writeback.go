package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// virtualMemory is where the kernel keeps the settings of its memory.
const virtualMemory = "/proc/sys/vm"

// never is how long a kernel takes to write back that does so on demand only.
const never = 100 * 365 * 24 * time.Hour

// writeBack returns how long the kernel may keep to itself what was written to a file: as
// old as it may get, and until the kernel looks next.
func writeBack(settings string) (time.Duration, error) {
	expire, err := centiseconds(filepath.Join(settings, "dirty_expire_centisecs"))
	if err != nil {
		return 0, err
	}

	every, err := centiseconds(filepath.Join(settings, "dirty_writeback_centisecs"))
	if err != nil {
		return 0, err
	}

	if every == 0 {
		return never, nil
	}

	return min(expire+every, never), nil
}

func centiseconds(path string) (time.Duration, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read how long the kernel keeps what it has to write: %w", err)
	}

	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read how long the kernel keeps what it has to write from %s: %w", path, err)
	}

	return time.Duration(n) * (time.Second / 100), nil
}
