package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// ErrDown is returned for something that needs a running cluster.
var ErrDown = errors.New("no cluster is running")

// initName is the first word of the command line of every node's PID 1.
const initName = "tini"

// nodeNamespaces are what a node has of its own.
const nodeNamespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS

// initArgs is the command line of a node's PID 1. A running node is found again by it: unlike a file
// with a process ID it can't be out of date, and it is there as soon as the process is.
func (c Config) initArgs(node string) []string {
	return []string{initName, "--", c.program("cluster"), "node", c.Dir, node}
}

// findInit returns the process ID of a node's PID 1 as the machine sees it, 0 if there is none.
func (c Config) findInit(node string) (int, error) {
	want := append(bytes.Join(byteSlices(c.initArgs(node)), []byte{0}), 0)
	return findProcess(func(cmdline []byte) bool { return bytes.Equal(cmdline, want) })
}

// anyNode reports whether a node of any cluster runs on this machine.
func anyNode() (bool, error) {
	pid, err := findProcess(func(cmdline []byte) bool {
		words := bytes.Split(cmdline, []byte{0})
		return len(words) >= 4 && string(words[0]) == initName && string(words[3]) == "node" &&
			filepath.Base(string(words[2])) == "cluster"
	})
	return pid != 0, err
}

func byteSlices(words []string) [][]byte {
	out := make([][]byte, 0, len(words))
	for _, w := range words {
		out = append(out, []byte(w))
	}
	return out
}

func findProcess(match func(cmdline []byte) bool) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that ended meanwhile is no error, and a zombie has no command line.
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && match(cmdline) {
			return pid, nil
		}
	}
	return 0, nil
}

// startInit starts a node in namespaces of its own. It outlives this program.
func (c Config) startInit(n Node) error {
	log, err := openLog(c.logFile(n.Name, "node"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	tini, err := exec.LookPath(initName)
	if err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	cmd := &exec.Cmd{
		Path: tini, Args: c.initArgs(n.Name), Dir: "/", Env: c.environment(),
		Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: nodeNamespaces,
		},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	return cmd.Process.Release()
}

// environment is what the node's programs see of the machine's environment: nothing.
func (c Config) environment() []string {
	return []string{
		"PATH=" + c.binDir() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "KUBECONFIG=" + c.Kubeconfig(),
	}
}

// stopInit kills a node; with its PID 1 the kernel ends everything in its namespaces.
func (c Config) stopInit(ctx context.Context, n Node) error {
	pid, err := c.findInit(n.Name)
	if err != nil || pid == 0 {
		return err
	}
	inside, err := processesOf(pid)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop node %s: %w", n.Name, err)
	}
	for _, p := range inside {
		for syscall.Kill(p, 0) == nil && !isZombie(p) {
			if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
				return fmt.Errorf("stop node %s: process %d does not end: %w", n.Name, p, ctx.Err())
			}
		}
	}
	return nil
}

// processesOf lists the processes in the PID namespace of pid, itself included.
func processesOf(pid int) ([]int, error) {
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, fmt.Errorf("look at the namespaces of process %d: %w", pid, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns", "pid")); err == nil && ns == namespace {
			pids = append(pids, p)
		}
	}
	return pids, nil
}

// isZombie: a dead process whose parent has not asked for it yet holds nothing anymore.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(rest, []byte("Z")) || bytes.HasPrefix(rest, []byte("X"))
}

// Command prepares a command that runs inside the first node's namespaces, in this process's working
// directory, with kubectl, velero and KUBECONFIG at hand. It is killed together with this process.
func (c Config) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	return c.commandOn(ctx, c.Nodes[0], append([]string{name}, args...)...)
}

// commandOn is Command for any of the nodes.
func (c Config) commandOn(ctx context.Context, n Node, command ...string) (*exec.Cmd, error) {
	words, err := c.enter(n, command)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = c.insideEnvironment(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// Exec replaces this process by a command inside; it only returns an error.
func (c Config) Exec(name string, args ...string) error {
	words, err := c.enter(c.Nodes[0], append([]string{name}, args...))
	if err != nil {
		return err
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		return fmt.Errorf("enter the cluster: %w", err)
	}
	if err := syscall.Exec(path, words, c.insideEnvironment(os.Environ())); err != nil {
		return fmt.Errorf("enter the cluster: %w", err)
	}
	return nil
}

// enter builds the command line that enters a node. The working directory is looked up again inside,
// because the one from outside belongs to the machine's mounts. The command ends with nsenter. Who is
// inside already stays there, and can't reach another node.
func (c Config) enter(n Node, command []string) ([]string, error) {
	if os.Getenv(insideVariable) == c.Dir && n.Name == c.Nodes[0].Name {
		return command, nil
	}
	pid, err := c.findInit(n.Name)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, fmt.Errorf("%w: node %s of %s", ErrDown, n.Name, c.Dir)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	words := []string{
		"nsenter", "--target=" + strconv.Itoa(pid), "--mount", "--net", "--pid", "--uts", "--",
		"sh", "-c", `cd "$1" && shift && exec setpriv --pdeathsig KILL -- "$@"`, "sh", cwd,
	}
	return append(words, command...), nil
}

// insideEnvironment adds the cluster's programs and kubeconfig to an environment.
func (c Config) insideEnvironment(environ []string) []string {
	path := "/usr/sbin:/usr/bin:/sbin:/bin"
	kept := slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		name, value, _ := bytes.Cut([]byte(variable), []byte("="))
		if string(name) == "PATH" {
			path = string(value)
		}
		return slices.Contains([]string{"PATH", "KUBECONFIG", "VELERO_NAMESPACE", insideVariable}, string(name))
	})
	return append(kept, "PATH="+c.binDir()+":"+path, "KUBECONFIG="+c.Kubeconfig(), "VELERO_NAMESPACE="+c.Velero.Namespace, insideVariable+"="+c.Dir)
}

// insideVariable is the variable that tells a process inside a cluster which one it is in, by its state folder.
const insideVariable = "ESTIBA_CLUSTER_INSIDE"
