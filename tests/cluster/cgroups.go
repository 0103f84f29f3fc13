package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// hierarchies returns where cgroups are mounted: one folder with cgroup v2, one per controller with v1.
func hierarchies() ([]string, error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	defer func() { _ = mounts.Close() }()
	var folders []string
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			folders = append(folders, f[1])
		}
	}
	return folders, lines.Err()
}

// makeCgroups makes the node's cgroup, which the kubelet wants to find.
func (c Config) makeCgroups(n Node) error {
	folders, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range folders {
		parent := root
		for _, name := range []string{strings.TrimPrefix(c.cgroup(), "/"), n.Name} {
			group := filepath.Join(parent, name)
			if err := os.MkdirAll(group, 0o755); err != nil {
				return fmt.Errorf("make cgroup %s: %w", group, err)
			}
			if err := passOn(parent, group); err != nil {
				return fmt.Errorf("set up cgroup %s: %w", group, err)
			}
			parent = group
		}
	}
	return nil
}

// passOn lets a new cgroup have what its parent has: with v2 the controllers, with v1 the processors and memory nodes.
func passOn(parent, group string) error {
	controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err == nil {
		for _, name := range strings.Fields(string(controllers)) {
			// A controller that can't be passed on is one that the kubelet doesn't get either.
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+name), 0o644)
		}
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(group, name), value, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes a cgroup with all below it, once nothing is in them.
func removeCgroups(ctx context.Context, group string) error {
	folders, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range folders {
		for {
			err := removeTree(filepath.Join(root, group))
			if err == nil {
				break
			}
			if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
				return fmt.Errorf("remove cgroup %s: %w", group, err)
			}
		}
	}
	return nil
}

// removeTree removes cgroups from the leaves up; the files in them go with them.
func removeTree(root string) error {
	var groups []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, group := range slices.Backward(groups) {
		if err := os.Remove(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
