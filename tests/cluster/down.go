package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// downTimeout bounds how long processes and cgroups may take to go.
const downTimeout = time.Minute

// Down ends the cluster and removes everything it made but the cache. It may be called for a cluster that
// does not run, or only half.
func Down(ctx context.Context, c Config, out io.Writer) error {
	if saved, err := Load(c.Dir); err == nil {
		c = saved
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	for _, n := range c.Nodes {
		if err := c.stopInit(ctx, n); err != nil {
			return err
		}
	}
	if err := removeCgroups(ctx, c.cgroup()); err != nil {
		return err
	}
	if err := c.removeMountPoints(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("remove the cluster's folder: %w", err)
	}
	_, err = fmt.Fprintf(out, "the cluster is down; the built programs stay in %s\n", c.CacheDir)
	return err
}

// removeMountPoints removes the folders that were made on the machine. While another cluster runs they
// stay: removing a mount point takes away the mounts on it in every other namespace.
func (c Config) removeMountPoints() error {
	busy, err := anyNode()
	if err != nil || busy {
		return err
	}
	notes, err := filepath.Glob(filepath.Join(c.mountPointNotes(), "*"))
	if err != nil {
		return fmt.Errorf("look for mount points: %w", err)
	}
	for _, note := range notes {
		target, err := os.ReadFile(note)
		if err != nil {
			return fmt.Errorf("look for mount points: %w", err)
		}
		// Only an empty folder goes; one that was put to use meanwhile is not ours anymore.
		for dir := string(target); dir != "/" && os.Remove(dir) == nil; dir = filepath.Dir(dir) {
			continue
		}
		if err := os.Remove(note); err != nil {
			return fmt.Errorf("forget a mount point: %w", err)
		}
	}
	return nil
}

// mountPointNotes is a folder that outlives the cluster, because the mount points may have to.
func (c Config) mountPointNotes() string { return filepath.Join(c.CacheDir, "mount-points") }

// Status describes the cluster in some lines.
func Status(ctx context.Context, c Config, out io.Writer) error {
	saved, err := Load(c.Dir)
	if err != nil {
		return err
	}
	c = saved
	for _, n := range c.Nodes {
		pid, err := c.findInit(n.Name)
		if err != nil {
			return err
		}
		if pid == 0 {
			return fmt.Errorf("%w: node %s does not run (up starts it again)", ErrDown, n.Name)
		}
		_, err = fmt.Fprintf(out, "node %s  %s  PID 1 is process %d  logs %s\n", n.Name, n.Address, pid, filepath.Dir(c.logFile(n.Name, "x")))
		if err != nil {
			return err
		}
	}
	pods, err := c.kubectl(ctx, "get", "pods", "--all-namespaces", "--output=wide")
	_, printErr := fmt.Fprintf(out, "API server  %s  (inside only)\nkubeconfig  %s\nobject store  %s  bucket %s, in %s\nVelero namespace  %s\n\n%s",
		c.APIServer(), c.Kubeconfig(), c.S3URL(), c.S3.Bucket, c.BucketDir(), c.Velero.Namespace, pods)
	return errors.Join(err, printErr)
}
