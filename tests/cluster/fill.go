package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/tests/cluster/parts"
)

// fill waits for the nodes and puts images, DNS, storage classes and Velero into the cluster.
func (c Config) fill(ctx context.Context, p *progress, images []string) error {
	p.step("importing images", 0, 0)
	for _, n := range c.Nodes {
		if err := c.retry(ctx, "node "+n.Name, func() error { return c.nodeReady(ctx, n) }); err != nil {
			return err
		}
	}
	if err := c.linkBucket(ctx); err != nil {
		return fmt.Errorf("reach the other cluster's object store: %w", err)
	}
	if err := c.loadImages(ctx, images); err != nil {
		return err
	}
	p.step("waiting for the API server and the nodes", 0, 0)
	if err := c.retry(ctx, "the API server", func() error {
		_, err := c.kubectl(ctx, "get", "--raw=/readyz")
		return err
	}); err != nil {
		return err
	}
	for _, name := range []string{"dns.yaml", "storage.yaml"} {
		objects, err := c.manifest(name)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, name, objects); err != nil {
			return err
		}
	}
	p.step("installing Velero "+parts.VeleroVersion+" into namespace "+c.Velero.Namespace, 0, 0)
	if err := c.installVelero(ctx); err != nil {
		return err
	}
	p.step("waiting for pods", 0, 0)
	return c.waitReady(ctx)
}

// loadImages imports all images into the first node, and into the others what a pod of a test needs.
func (c Config) loadImages(ctx context.Context, paths []string) error {
	for _, path := range paths {
		nodes := c.Nodes[:1]
		if name := filepath.Base(path); strings.HasPrefix(name, fileName(pauseImage)) || strings.HasPrefix(name, fileName(BusyboxImage)) {
			nodes = c.Nodes
		}
		if err := c.loadAs(ctx, nodes, path, filepath.Base(path)); err != nil {
			return err
		}
	}
	return nil
}

// nodeReady connects a node with the first one, and reports whether it takes images.
func (c Config) nodeReady(ctx context.Context, n Node) error {
	if err := c.linkNode(ctx, n); err != nil {
		return err
	}
	cmd, err := c.commandOn(ctx, n, "ctr", "version")
	if err != nil {
		return err
	}
	return cmd.Run()
}

// waitReady waits until everything that up installs is usable.
func (c Config) waitReady(ctx context.Context) error {
	if err := c.retry(ctx, "pods", func() error { return c.checkFresh(ctx) }); err != nil {
		return err
	}
	namespace := "--namespace=" + c.Velero.Namespace
	waits := [][]string{
		{"wait", "--for=condition=Ready", "--all", "node"},
		{"rollout", "status", "--namespace=kube-system", "deployment/coredns"},
		{"rollout", "status", "--namespace=local-path-storage", "deployment/local-path-provisioner"},
		{"rollout", "status", namespace, "deployment/velero"},
	}
	if c.Velero.FSB {
		waits = append(waits, []string{"rollout", "status", namespace, "daemonset/node-agent"})
	}
	for _, args := range waits {
		if _, err := c.kubectl(ctx, append(args, "--timeout=180s")...); err != nil {
			return fmt.Errorf("wait for the cluster: %w", err)
		}
	}
	return c.waitLocation(ctx)
}

// waitLocation waits until Velero can use its storage location. A cluster with another's bucket has none before somebody makes it.
func (c Config) waitLocation(ctx context.Context) error {
	if c.S3.Of != "" {
		return nil
	}
	_, err := c.kubectl(ctx, "wait", "--for=jsonpath={.status.phase}=Available", "--namespace="+c.Velero.Namespace, "backupstoragelocation/default", "--timeout=180s")
	return err
}

// checkFresh reports whether what the API server says of nodes and pods is from after the nodes' start: a node that
// was cut off left conditions behind that say everything is ready.
func (c Config) checkFresh(ctx context.Context) error {
	for _, n := range c.Nodes {
		info, err := os.Stat(c.startedFile(n))
		if err != nil {
			return fmt.Errorf("find out when node %s started: %w", n.Name, err)
		}
		text, err := c.kubectl(ctx, "get", "pods", "--all-namespaces", "--field-selector=spec.nodeName="+n.Name, "--output=json")
		if err != nil {
			return err
		}
		if err := checkPods([]byte(text), info.ModTime()); err != nil {
			return err
		}
		text, err = c.kubectl(ctx, "get", "lease", "--namespace=kube-node-lease", n.Name, "--output=jsonpath={.spec.renewTime}")
		if err != nil {
			return err
		}
		if renewed, err := time.Parse(time.RFC3339, text); err != nil || renewed.Before(info.ModTime()) {
			return fmt.Errorf("node %s was last heard of at %q: %w", n.Name, text, ErrDown)
		}
	}
	return nil
}

// checkPods returns an error while a container is said to have been running since before a point in time.
func checkPods(list []byte, since time.Time) error {
	var pods struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Status   struct {
				ContainerStatuses []struct {
					State struct {
						Running *struct{ StartedAt time.Time }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(list, &pods); err != nil {
		return fmt.Errorf("read the list of pods: %w", err)
	}
	for _, p := range pods.Items {
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Running != nil && s.State.Running.StartedAt.Before(since.Truncate(time.Second)) {
				return fmt.Errorf("pod %s/%s is not started again yet", p.Metadata.Namespace, p.Metadata.Name)
			}
		}
	}
	return nil
}

// retry tries until it works or the context ends, and then says what the last error was.
func (c Config) retry(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
	}
}
