package parts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Cache is the folder that holds the built programs. It is safe to share between several clusters
// and several processes, and a build that was cut off at any point is simply done again.
type Cache struct {
	// Dir is the folder's absolute path.
	Dir string
	// Go is the path of the go command.
	Go string
	// Log receives what the go command prints.
	Log io.Writer
}

// Path says where a program of a part lies once it is built.
func (c Cache) Path(p Part, binary string) string {
	return filepath.Join(c.Dir, p.Key(), "bin", binary)
}

// Find is Path for a program of any part; program names are unique. It returns "" for an unknown one.
func (c Cache) Find(binary string) string {
	for _, p := range All() {
		for _, b := range p.Binaries {
			if b.Name == binary {
				return c.Path(p, binary)
			}
		}
	}
	return ""
}

// Task is one program that is not in the cache.
type Task struct {
	Part   Part
	Binary Binary
}

// Missing returns what has to be built yet, in order.
func (c Cache) Missing(all []Part) []Task {
	var tasks []Task
	for _, p := range all {
		for _, b := range p.Binaries {
			if _, err := os.Stat(c.Path(p, b.Name)); err != nil {
				tasks = append(tasks, Task{p, b})
			}
		}
	}
	return tasks
}

// Remaining adds up the estimates of the tasks.
func Remaining(tasks []Task) time.Duration {
	var sum time.Duration
	for _, t := range tasks {
		sum += t.Binary.Estimate
	}
	return sum
}

// Build makes one program. Another process that builds a program of the same part at the same time is
// waited for. The file appears under its name only when it is whole.
func (c Cache) Build(ctx context.Context, t Task) error {
	folder := filepath.Join(c.Dir, t.Part.Key())
	target := c.Path(t.Part, t.Binary.Name)
	for _, dir := range []string{filepath.Dir(target), filepath.Join(folder, "module")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the cache folder of %s: %w", t.Part.Key(), err)
		}
	}
	unlock, err := lock(filepath.Join(folder, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if err := c.writeModule(ctx, t.Part, filepath.Join(folder, "module")); err != nil {
		return err
	}
	return c.compile(ctx, t, target)
}

func (c Cache) compile(ctx context.Context, t Task, target string) error {
	half := filepath.Join(filepath.Dir(target), "."+t.Binary.Name+".part")
	args := []string{"build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", linkerFlags(t.Part), "-o", half, t.Binary.Package}
	cmd := c.command(ctx, filepath.Join(c.Dir, t.Part.Key(), "module"), args...)
	cmd.Stdout = c.Log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s of %s: %w", t.Binary.Name, t.Part.Key(), err)
	}
	if err := os.Rename(half, target); err != nil {
		return fmt.Errorf("put %s of %s into the cache: %w", t.Binary.Name, t.Part.Key(), err)
	}
	return nil
}

// writeModule writes the part's own source, and its go.mod unless it is there already; the go command completes it.
func (c Cache) writeModule(ctx context.Context, p Part, dir string) error {
	if p.Main != "" {
		if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(p.Main), 0o644); err != nil {
			return fmt.Errorf("write the main package of %s: %w", p.Key(), err)
		}
	}
	file := filepath.Join(dir, "go.mod")
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	upstream, err := c.upstream(ctx, p, dir)
	if err != nil {
		return err
	}
	text, err := moduleFile(p, upstream)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".part", []byte(text), 0o644); err != nil {
		return fmt.Errorf("write go.mod for %s: %w", p.Key(), err)
	}
	if err := os.Rename(file+".part", file); err != nil {
		return fmt.Errorf("write go.mod for %s: %w", p.Key(), err)
	}
	return nil
}

// upstream returns the part's own go.mod as JSON.
func (c Cache) upstream(ctx context.Context, p Part, dir string) ([]byte, error) {
	out, err := c.command(ctx, dir, "mod", "download", "-json", p.Module+"@"+p.Version).Output()
	var downloaded struct{ GoMod, Error string }
	if decodeErr := json.Unmarshal(out, &downloaded); decodeErr != nil {
		return nil, fmt.Errorf("download %s %s: %w", p.Module, p.Version, errors.Join(err, decodeErr))
	}
	if downloaded.Error != "" {
		return nil, fmt.Errorf("download %s %s: %s", p.Module, p.Version, downloaded.Error)
	}
	text, err := c.command(ctx, dir, "mod", "edit", "-json", downloaded.GoMod).Output()
	if err != nil {
		return nil, fmt.Errorf("read go.mod of %s %s: %w", p.Module, p.Version, err)
	}
	return text, nil
}

// command prepares the go command. It runs at a low priority: a first build takes all cores for minutes.
func (c Cache) command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nice", append([]string{c.Go}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = c.Log
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	// An interrupt must stop the compilers too, not only the go command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func linkerFlags(p Part) string {
	flags := []string{"-s", "-w"}
	for name, value := range p.Defines {
		flags = append(flags, "-X "+name+"="+value)
	}
	slices.Sort(flags)
	return strings.Join(flags, " ")
}

// lock takes an exclusive lock that the kernel gives back when the process ends, however it ends.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock %s: %w", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("take the lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
