package cluster

import (
	"bufio"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// Space that is needed, measured on amd64: a first build leaves 2.8 GiB of modules, 6.2 GiB of build cache
// and 1 GiB of programs and images; a running cluster takes less than 1 GiB plus what its pods write.
const (
	gibibyte       = 1 << 30
	diskForBuild   = 11 * gibibyte
	diskForRunning = 2 * gibibyte
)

// goHint is how Go is had on the machines this is for: Debian's own is too old.
const goHint = "see https://go.dev/doc/install, then: export PATH=$PATH:/usr/local/go/bin"

// Problem is a reason why a cluster can't run here, and what mends it.
type Problem struct {
	What string
	// Mend is a command, or a sentence where no command would do.
	Mend string
}

// String is the problem in one line.
func (p Problem) String() string { return p.What + "\n      mend it: " + p.Mend }

// Machine is what a cluster needs to know of the machine, so that Check needs none.
type Machine struct {
	UID      int
	OS, Arch string
	// Namespaces reports whether this user may make namespaces; root in a plain container may not.
	Namespaces bool
	// Distribution holds ID and ID_LIKE of /etc/os-release.
	Distribution []string
	// Go is the path of the go command, empty if there is none.
	Go string
	// HasApt reports whether apt-get is there.
	HasApt bool
	// MissingPackages are Debian packages whose programs are not there.
	MissingPackages []string
	// Disks are the free bytes of the file systems in use, by a folder on them.
	Disks []Disk
}

// Disk is the free space at a folder, and how much of it is needed.
type Disk struct {
	Folder, For  string
	Free, Needed uint64
}

// Check returns everything that keeps a cluster from running, not just the first.
func Check(m Machine) []Problem {
	var problems []Problem
	add := func(wrong bool, what, mend string) {
		if wrong {
			problems = append(problems, Problem{what, mend})
		}
	}
	add(m.OS != "linux", "the cluster needs Linux, this is "+m.OS, "use a Debian or Ubuntu machine, a virtual one will do")
	add(m.Arch != "amd64" && m.Arch != "arm64", "the processor is "+m.Arch+", not amd64 or arm64", "use another machine")
	add(m.UID != 0, "this is not root", "sudo --preserve-env=PATH make cluster-up")
	add(m.UID == 0 && !m.Namespaces, "this root may not make mount and network namespaces", "use a virtual machine, or a privileged container")
	add(m.Go == "", "there is no go command in PATH", goHint)
	if len(m.MissingPackages) > 0 {
		debian := slices.Contains(m.Distribution, "debian") || slices.Contains(m.Distribution, "ubuntu")
		add(!debian || !m.HasApt, "programs of these Debian packages are missing and this is neither Debian nor Ubuntu: "+
			strings.Join(m.MissingPackages, " "), "install them the way this system does, or use Debian or Ubuntu")
	}
	for _, d := range m.Disks {
		add(d.Free < d.Needed, fmt.Sprintf("%s has %.1f GiB free, %s needs %.1f GiB", d.Folder,
			float64(d.Free)/gibibyte, d.For, float64(d.Needed)/gibibyte),
			"free some space (go clean -cache -modcache helps), or point ESTIBA_CACHE, ESTIBA_CLUSTER_DIR, GOCACHE or GOMODCACHE to a larger disk")
	}
	return problems
}

// requirement is a program and the Debian package that has it.
type requirement struct {
	pkg string
	// program is looked up in PATH unless it is a path.
	program string
	// static asks for a program without a dynamic loader.
	static bool
}

func requirements() []requirement {
	return []requirement{
		{pkg: "containerd", program: "containerd"},
		{pkg: "runc", program: "runc"},
		{pkg: "containernetworking-plugins", program: "/usr/lib/cni/ptp"},
		{pkg: "busybox-static", program: "/bin/busybox", static: true},
		{pkg: "iproute2", program: "ip"},
		{pkg: "nftables", program: "nft"},
		{pkg: "iptables", program: "iptables"},
		{pkg: "kmod", program: "modprobe"},
		{pkg: "tini", program: "/usr/bin/tini-static"},
		{pkg: "util-linux", program: "nsenter"},
		{pkg: "util-linux", program: "setpriv"},
		{pkg: "rsync", program: "rsync"},
		// Tests of data make file systems of their own.
		{pkg: "e2fsprogs", program: "mkfs.ext4"},
		{pkg: "xfsprogs", program: "mkfs.xfs"},
		// The race detector, under which `make test` runs the unit tests, needs a C compiler.
		{pkg: "build-essential", program: "gcc"},
	}
}

// missingPackages looks for what is not installed.
func missingPackages() []string {
	var missing []string
	for _, r := range requirements() {
		path, err := exec.LookPath(r.program)
		if (err != nil || (r.static && isDynamic(path))) && !slices.Contains(missing, r.pkg) {
			missing = append(missing, r.pkg)
		}
	}
	return missing
}

func isDynamic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return true
	}
	defer func() { _ = f.Close() }()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Look describes this machine. Building says whether programs have to be built first.
func (c Config) Look(ctx context.Context, building bool) Machine {
	m := Machine{UID: os.Geteuid(), OS: runtime.GOOS, Arch: runtime.GOARCH, MissingPackages: missingPackages()}
	m.Namespaces = namespaces(ctx)
	if text, err := os.Open("/etc/os-release"); err == nil {
		m.Distribution = distribution(text)
		_ = text.Close()
	}
	if _, err := exec.LookPath("apt-get"); err == nil {
		m.HasApt = true
	}
	m.Disks = []Disk{{Folder: c.Dir, For: "a running cluster", Needed: diskForRunning}}
	if path, err := exec.LookPath("go"); err == nil {
		m.Go = path
	}
	if building && m.Go != "" {
		out, err := exec.CommandContext(ctx, m.Go, "env", "GOCACHE").Output()
		folder := strings.TrimSpace(string(out))
		if err != nil || folder == "" {
			folder = c.CacheDir
		}
		m.Disks = append(m.Disks, Disk{Folder: folder, For: "the first build", Needed: diskForBuild})
	}
	for i, d := range m.Disks {
		m.Disks[i].Free = freeSpace(d.Folder)
	}
	return m
}

// namespaces tries to start a program the way a node is started.
func namespaces(ctx context.Context) bool {
	cmd := exec.CommandContext(ctx, "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: nodeNamespaces}
	return cmd.Run() == nil
}

// distribution reads ID and ID_LIKE from an os-release file.
func distribution(r io.Reader) []string {
	var ids []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		if name == "ID" || name == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	return ids
}

// freeSpace asks the nearest parent that exists.
func freeSpace(folder string) uint64 {
	var fs syscall.Statfs_t
	for syscall.Statfs(folder, &fs) != nil {
		if folder == filepath.Dir(folder) {
			return 0
		}
		folder = filepath.Dir(folder)
	}
	return fs.Bavail * uint64(fs.Bsize)
}

// installPackages installs Debian packages.
func installPackages(ctx context.Context, log io.Writer, packages []string) error {
	for _, args := range [][]string{
		{"update", "--quiet"},
		append([]string{"install", "--yes", "--quiet", "--no-install-recommends"}, packages...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("install Debian packages %s: %w", strings.Join(packages, " "), err)
		}
	}
	return nil
}
