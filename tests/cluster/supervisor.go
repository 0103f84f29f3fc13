package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// RunNode is what runs inside a node's fresh namespaces, as the child of their PID 1: it sets up mounts,
// host name and network and then keeps the node's programs running until it is killed.
func RunNode(ctx context.Context, dir, name string) error {
	c, err := Load(dir)
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if n.Name != name {
			continue
		}
		if err := c.setUpNode(ctx, n); err != nil {
			return fmt.Errorf("set up node %s: %w", name, err)
		}
		var all sync.WaitGroup
		for _, p := range c.components(n) {
			all.Go(func() { c.keepRunning(ctx, n, p) })
		}
		all.Wait()
		return ctx.Err()
	}
	return fmt.Errorf("%w: no node %q", ErrConfig, name)
}

func (c Config) setUpNode(ctx context.Context, n Node) error {
	if err := unix.Sethostname([]byte(n.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := c.mountNode(n); err != nil {
		return err
	}
	return c.connectNode(ctx, n)
}

// binds maps folders of the machine to folders of the node's state: inside, they are the node's own.
func (c Config) binds(n Node) map[string]string {
	own := func(name string) string { return filepath.Join(c.nodeDir(n.Name), name) }
	return map[string]string{
		"/run":                own("run"),
		"/var/lib/kubelet":    own("kubelet"),
		"/var/lib/containerd": own("containerd"),
		"/var/lib/cni":        own("cni"),
		"/var/log/pods":       own("pod-logs"),
		"/var/log/containers": own("container-logs"),
		"/etc/cni/net.d":      c.nodeFile(n, "cni"),
	}
}

// kernelSettings are what a kubelet wants to find, or else sets, for the whole machine. It finds them in
// files of the node instead, so that the machine keeps its own.
func kernelSettings() map[string]string {
	return map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	}
}

func (c Config) mountNode(n Node) error {
	// First cut the ties to the machine's mounts, then share among the node's own: the kubelet's
	// mounts must reach containers that were started before them.
	for _, flag := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|flag, ""); err != nil {
			return fmt.Errorf("set the propagation of mounts: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for target, source := range c.binds(n) {
		if err := os.MkdirAll(source, 0o755); err != nil {
			return fmt.Errorf("make a folder of the node: %w", err)
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s over %s: %w", source, target, err)
		}
	}
	for name, value := range kernelSettings() {
		source := c.nodeFile(n, "sysctl/"+name)
		if err := writeFile(source, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		err := unix.Mount(source, "/proc/sys/"+name, "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mount %s over /proc/sys/%s: %w", source, name, err)
		}
	}
	return nil
}

// keepRunning starts a program again whenever it ends, as a machine's init would.
func (c Config) keepRunning(ctx context.Context, n Node, p component) {
	log, err := openLog(c.logFile(n.Name, p.Name))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer func() { _ = log.Close() }()
	for _, address := range p.After {
		if !c.waitFor(ctx, address) {
			return
		}
	}
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, p.Args[0], p.Args[1:]...)
		cmd.Env = append(os.Environ(), p.Env...)
		cmd.Stdout, cmd.Stderr = log, log
		err := cmd.Run()
		fmt.Fprintf(log, "%s%s (%v) and is started again\n", endMark, p.Name, err)
		pause(ctx, time.Second)
	}
}

// endMark starts the line that a program's log gets when the program ends.
const endMark = "*** ended: "

// endings counts how often a program ended according to its log, and returns its last words.
func endings(log string) (times int, last string) {
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, endMark) {
			times++
			continue
		}
		last = strings.TrimSpace(line)
	}
	return times, last
}

func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
