package runner

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// minimumCeiling is the least that a worker is given, in bytes: below it, the
// engine's own tables do not fit.
const minimumCeiling = 128 << 20

// Ceiling returns the memory ceiling of one worker, in bytes: what the container's
// limit leaves beside the daemon's own share, divided by all slots, the reserved
// ones included. Their sum stays below the limit, because on cgroup v2 a process
// that goes over it takes the whole container along. 0 means no ceiling: there
// is no limit. Where the division leaves less than a worker can live with, it is
// given that much nevertheless: ok is false then, and fewer slots or a higher
// limit are needed.
func Ceiling(containerLimit, daemonShare int64, slots int) (ceiling int64, ok bool) {
	if containerLimit <= 0 {
		return 0, true
	}

	c := (containerLimit - daemonShare) / int64(max(slots, 1))
	if c < minimumCeiling {
		return minimumCeiling, false
	}

	return c, true
}

// planned is how many workers the ceiling was made for.
func (c Config) planned() int { return c.Slots + c.Reserved }

// memory is what all workers together may use, in bytes; 0 is no bound.
func (c Config) memory() int64 { return c.MemoryCeiling * int64(c.planned()) }

// ceiling returns that of the worker that has the slot. One that is alone has those of all slots but the reserved ones.
func (c Config) ceiling(of *slot) int64 {
	switch {
	case c.MemoryCeiling <= 0:
		return 0
	case of.count > c.planned():
		return max(minimumCeiling, c.memory()/int64(of.count))
	case of.alone && !of.frozen:
		return c.MemoryCeiling * int64(c.Slots)
	default:
		return c.MemoryCeiling
	}
}

// perReader is what a file that is read or written takes of a worker's memory, in bytes: a pack that is
// filled or sent, and what belongs to it.
const perReader = 24 << 20

// parallel is how many files a worker reads or writes at a time: reading waits for the store as much as it
// computes, and half of the memory is for everything else.
func (c Config) parallel(ceiling int64) int {
	n := 2 * c.Processors
	if ceiling > 0 {
		n = min(n, int(ceiling/2/perReader))
	}

	return min(max(n, 1), maxParallel)
}

// maxParallel bounds the files that are read at a time, whatever the machine.
const maxParallel = 32

// perObject is what a file or a folder takes of a worker's memory until it is written to the store, in bytes: entries of
// the index, several times over when they are written.
const perObject = 1 << 10

// flushAfter is after how many files and folders a backup writes to the store what it has read: they may take a quarter
// of the memory. Each time, there is one more index to look each content up in. 0 leaves it to the engine.
func flushAfter(ceiling int64) int { return int(ceiling / 4 / perObject) }

// softLimit is what the worker's own runtime is told, in bytes. The rest is for
// what the runtime does not count, and garbage alone has nobody asked to end.
func softLimit(ceiling int64) int64 { return ceiling / 4 * 3 }

// memoryOf returns the memory of a process that can't be given back by dropping
// caches, in bytes. The status file can be read for a process that is not
// dumpable, too; smaps_rollup can't.
func memoryOf(pid int) (int64, error) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("read the worker's memory: %w", err)
	}

	return parseMemory(status)
}

// parseMemory adds up anonymous and shared memory. Pages of files, such as those
// of the program itself, are the kernel's to take back.
func parseMemory(status []byte) (int64, error) {
	var total int64

	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if name != "RssAnon" && name != "RssShmem" {
			continue
		}

		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the worker's memory: %s: %w", name, err)
		}

		total += kib << 10
	}

	return total, nil
}
