package probe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Process is a process as its node sees it.
type Process struct {
	// PID in the PID namespace of the one who looks.
	PID int
}

// Find returns the processes whose arguments hold all of these, whole.
func Find(arguments ...string) []Process {
	var found []Process

	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // It has ended.
		}

		has := strings.Split(string(content), "\x00")
		if !slices.ContainsFunc(arguments, func(a string) bool { return !slices.Contains(has, a) }) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, Process{pid})
		}
	}

	return found
}

// Path returns the path of one of the process's files in /proc.
func (p Process) Path(name string) string { return fmt.Sprintf("/proc/%d/%s", p.PID, name) }

// Read reads one of the process's files in /proc.
func (p Process) Read(name string) ([]byte, error) { return os.ReadFile(p.Path(name)) }

// Status returns the fields of the status of each of the process's threads.
func (p Process) Status() ([]map[string]string, error) {
	tasks, err := filepath.Glob(p.Path("task/*/status"))
	if err != nil || len(tasks) == 0 {
		return nil, fmt.Errorf("process %d has no threads: %w", p.PID, errors.Join(err, os.ErrNotExist))
	}

	var all []map[string]string

	for _, path := range tasks {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}

		fields := map[string]string{}

		for line := range strings.Lines(string(content)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}

		all = append(all, fields)
	}

	return all, nil
}

// Descriptors returns what the process's descriptors are open on.
func (p Process) Descriptors() (map[int]string, error) {
	entries, err := os.ReadDir(p.Path("fd"))
	if err != nil {
		return nil, err
	}

	open := map[int]string{}

	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}

		if open[fd], err = os.Readlink(p.Path("fd/" + e.Name())); err != nil {
			return nil, err
		}
	}

	return open, nil
}

const (
	piece = 4 << 20
	// overlap is longer than any secret that is looked for.
	overlap = 8 << 10
)

// Search looks for secrets, by name, in all of the process's memory that can be
// read. It gives the names of those that are there, and how many bytes it looked at.
func (p Process) Search(secrets map[string][]byte) (found map[string]bool, looked int64, err error) {
	maps, err := os.Open(p.Path("maps"))
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = maps.Close() }() // Read from only.

	memory, err := os.Open(p.Path("mem"))
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = memory.Close() }() // Read from only.

	found = map[string]bool{}
	buffer := make([]byte, piece)

	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var (
			begin, end uint64
			rights     string
		)

		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &begin, &end, &rights); err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", maps.Name(), err)
		}

		if rights[0] != 'r' || strings.Contains(lines.Text(), "[v") { // pages of the kernel's, the same for all
			continue
		}

		looked += searchIn(memory, int64(begin), int64(end), buffer, func(content []byte) {
			for name, secret := range secrets {
				if bytes.Contains(content, secret) {
					found[name] = true
				}
			}
		})
	}

	return found, looked, nil
}

// searchIn hands over a range of memory in pieces that overlap.
func searchIn(memory io.ReaderAt, begin, end int64, buffer []byte, look func([]byte)) (looked int64) {
	for begin < end {
		n, err := memory.ReadAt(buffer[:min(int64(len(buffer)), end-begin)], begin)
		look(buffer[:n])
		looked += int64(n)

		if err != nil || int64(n) >= end-begin {
			return looked
		}

		begin += int64(n) - min(overlap, int64(n)-1)
	}

	return looked
}
