package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/estiba-dev/estiba/tests/cluster/parts"
)

// ErrMachine is wrapped by the error that lists what this machine lacks.
var ErrMachine = errors.New("a cluster can't run here")

// ErrOther is returned by Up when a cluster with other settings runs in the same state folder.
var ErrOther = errors.New("a cluster with other settings is running")

// startTimeout bounds everything after the programs are built; it takes some 15 s.
const startTimeout = 5 * time.Minute

// Options are what Up and Build need beside the settings.
type Options struct {
	// Out receives a line per step.
	Out io.Writer
	// Program is this project's cluster command, which also runs inside as the nodes' supervisor.
	Program string
	// Now is the clock.
	Now func() time.Time
}

// Up makes the cluster run, from whatever state it is in: it may be called again after it succeeded, failed or
// was killed. It returns when pods can be run and Velero takes backups.
func Up(ctx context.Context, c Config, o Options) error {
	if err := c.Validate(); err != nil {
		return err
	}
	p := newProgress(o.Out, o.Now)
	images, unlock, err := c.prepare(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.linkPrograms(o.Program); err != nil {
		return err
	}
	if err := c.startNodes(ctx, o, p); err != nil {
		return err
	}
	if err := c.fill(ctx, p, images); err != nil {
		return fmt.Errorf("%w\n%slogs: %s", err, c.troubles(), c.logFile(c.Nodes[0].Name, "*"))
	}
	p.line("the cluster is up")
	return nil
}

// Build builds all programs and images and starts nothing.
func Build(ctx context.Context, c Config, o Options) error {
	_, unlock, err := c.prepare(ctx, newProgress(o.Out, o.Now))
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// prepare does what needs no running node. It returns the images' tarballs and keeps other calls for the same cluster out.
func (c Config) prepare(ctx context.Context, p *progress) (images []string, unlock func(), err error) {
	cache := parts.Cache{Dir: c.CacheDir}
	missing := cache.Missing(parts.All())
	machine := c.Look(ctx, len(missing) > 0)
	if problems := Check(machine); len(problems) > 0 {
		return nil, nil, problemsError(problems)
	}
	unlock, err = c.lock()
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	log, err := openLog(filepath.Join(c.CacheDir, "build.log"))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = log.Close() }()
	if len(machine.MissingPackages) > 0 {
		p.step("installing Debian packages: "+strings.Join(machine.MissingPackages, " "), 20*time.Second, parts.Remaining(missing))
		if err := installPackages(ctx, log, machine.MissingPackages); err != nil {
			return nil, nil, fmt.Errorf("%w (log: %s)", err, log.Name())
		}
	}
	cache.Go, cache.Log = machine.Go, log
	for i, t := range missing {
		p.step(fmt.Sprintf("building %s %s", t.Binary.Name, t.Part.Version), t.Binary.Estimate, parts.Remaining(missing[i+1:]))
		if err := cache.Build(ctx, t); err != nil {
			return nil, nil, fmt.Errorf("%w (log: %s)", err, log.Name())
		}
	}
	p.step("assembling images", 0, 0)
	images, err = c.buildImages(ctx)
	return images, unlock, err
}

func problemsError(problems []Problem) error {
	lines := make([]string, 0, len(problems))
	for _, p := range problems {
		lines = append(lines, "  - "+p.String())
	}
	return fmt.Errorf("%w:\n%s", ErrMachine, strings.Join(lines, "\n"))
}

// lock keeps two calls for the same cluster apart. The lock's file is in the cache because down removes the state.
func (c Config) lock() (unlock func(), err error) {
	if err := os.MkdirAll(c.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(c.CacheDir, "cluster-"+c.Name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the cluster's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("take the cluster's lock: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// linkPrograms puts all programs into the folder that is in PATH inside.
func (c Config) linkPrograms(self string) error {
	cache := parts.Cache{Dir: c.CacheDir}
	if err := os.MkdirAll(c.binDir(), 0o755); err != nil {
		return fmt.Errorf("make the cluster's folder: %w", err)
	}
	for _, part := range parts.All() {
		for _, b := range part.Binaries {
			if err := link(cache.Path(part, b.Name), c.program(b.Name)); err != nil {
				return err
			}
		}
	}
	text, err := os.ReadFile(self)
	if err != nil {
		return fmt.Errorf("read the cluster command: %w", err)
	}
	return writeFile(c.program("cluster"), text, 0o755)
}

// troubles names the programs that ended, and what they said last: one that can't start shows up as
// something else that waits.
func (c Config) troubles() string {
	var b strings.Builder
	for _, n := range c.Nodes {
		for _, p := range c.components(n) {
			text, err := os.ReadFile(c.logFile(n.Name, p.Name))
			if err != nil {
				continue
			}
			if times, last := endings(string(text)); times > 0 {
				fmt.Fprintf(&b, "%s on %s ended %d times, at last after: %s\n", p.Name, n.Name, times, last)
			}
		}
	}
	return b.String()
}

func link(source, target string) error {
	if now, err := os.Readlink(target); err == nil && now == source {
		return nil
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", target, err)
	}
	if err := os.Symlink(source, target); err != nil {
		return fmt.Errorf("link %s: %w", target, err)
	}
	return nil
}

// startNodes starts the nodes that don't run.
func (c Config) startNodes(ctx context.Context, o Options, p *progress) error {
	if err := c.checkRunning(); err != nil {
		return err
	}
	if err := errors.Join(c.writePKI(o.Now()), c.save(), os.MkdirAll(c.BucketDir(), 0o755),
		os.MkdirAll(c.SharedDir(), 0o755)); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		pid, err := c.findInit(n.Name)
		if err != nil {
			return err
		}
		if pid != 0 {
			p.line("node " + n.Name + " is running")
			continue
		}
		p.step("starting node "+n.Name, 0, 0)
		if err := c.prepareNode(ctx, n); err != nil {
			return err
		}
		if err := c.startInit(n); err != nil {
			return err
		}
	}
	return nil
}

// checkRunning refuses other settings for a running cluster; only Velero's may change.
func (c Config) checkRunning() error {
	pid, err := c.findInit(c.Nodes[0].Name)
	if err != nil || pid == 0 {
		return err
	}
	running, err := Load(c.Dir)
	if err != nil {
		return err
	}
	running.Velero = c.Velero
	if !reflect.DeepEqual(running, c) {
		return fmt.Errorf("%w: run down first", ErrOther)
	}
	return nil
}

// prepareNode writes what a node finds when it starts. As after a machine's start its /run is empty and there
// are no cgroups: a kubelet that finds those of dead containers looks at each for 3 s before it runs anything.
func (c Config) prepareNode(ctx context.Context, n Node) error {
	if err := removeCgroups(ctx, c.cgroup()+"/"+n.Name); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(c.nodeDir(n.Name), "run")); err != nil {
		return fmt.Errorf("empty the node's /run: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(c.nodeDir(n.Name), "volumes"), 0o755); err != nil {
		return fmt.Errorf("make the node's folder of volumes: %w", err)
	}
	if err := c.makeMountPoints(n); err != nil {
		return err
	}
	if err := errors.Join(c.writeNodeFiles(n), writeFile(c.startedFile(n), nil, 0o644)); err != nil {
		return err
	}
	return c.makeCgroups(n)
}

// makeMountPoints makes the folders that a node mounts its own over, and notes down those that the machine lacked.
func (c Config) makeMountPoints(n Node) error {
	for target := range c.binds(n) {
		if _, err := os.Stat(target); err == nil {
			continue
		}
		note := filepath.Join(c.mountPointNotes(), fileName(target))
		if err := writeFile(note, []byte(target), 0o644); err != nil {
			return err
		}
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("make the mount point %s: %w", target, err)
		}
	}
	return nil
}
