package runner

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// minimumCeiling is the least that a worker is given, in bytes: below it, the
// engine's own tables do not fit.
const minimumCeiling = 128 << 20

// Ceiling gives the memory ceiling of one worker, in bytes: what the container's
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

// ceiling gives that of one worker which begins while so many run, itself included.
func (c Config) ceiling(running int) int64 {
	if c.MemoryCeiling <= 0 || running <= c.planned() {
		return c.MemoryCeiling
	}

	return max(minimumCeiling, c.memory()/int64(running))
}

// pool watches what all workers use together. Each keeps the ceiling it began with,
// so that while more run than were planned, for the sake of frozen jobs, their ceilings add
// up to more than there is; what they use must not.
type pool struct {
	// total is in bytes; 0 is no bound.
	total int64

	mu   sync.Mutex
	used []*share
}

// share is what one worker uses; guarded by pool.mu.
type share struct {
	frozen bool
	bytes  int64
}

func (p *pool) join(frozen bool) *share {
	p.mu.Lock()
	defer p.mu.Unlock()

	s := &share{frozen: frozen}
	p.used = append(p.used, s)

	return s
}

func (p *pool) leave(s *share) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.used = slices.DeleteFunc(p.used, func(o *share) bool { return o == s })
}

// take notes what a worker uses, in bytes, and gives what all use together if that is too much and this
// worker is the one to go: the one that began last and loses least by it, and one that nobody is frozen for before any other.
func (p *pool) take(s *share, bytes int64) (together int64, goes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()

	s.bytes = bytes

	var last *share

	for _, o := range p.used {
		together += o.bytes

		if last == nil || last.frozen || !o.frozen {
			last = o
		}
	}

	return together, p.total > 0 && together > p.total && last == s
}

// softLimit is what the worker's own runtime is told, in bytes. The rest is for
// what the runtime does not count.
func softLimit(ceiling int64) int64 { return ceiling / 8 * 7 }

// memoryOf gives the memory of a process that can't be given back by dropping
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
