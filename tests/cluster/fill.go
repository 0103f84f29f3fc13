package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// fill waits for the nodes and puts images, DNS, storage classes and Velero into the cluster.
func (c Config) fill(ctx context.Context, p *progress, images []string) error {
	p.step("importing images", 0, 0)
	if err := c.retry(ctx, "containerd", func() error {
		cmd, err := c.Command(ctx, "ctr", "version")
		if err != nil {
			return err
		}
		return cmd.Run()
	}); err != nil {
		return err
	}
	for _, path := range images {
		if err := c.loadOnce(ctx, path); err != nil {
			return err
		}
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
	p.step("installing Velero "+filepath.Base(VeleroImage)+" into namespace "+c.Velero.Namespace, 0, 0)
	if err := c.installVelero(ctx); err != nil {
		return err
	}
	p.step("waiting for pods", 0, 0)
	return c.waitReady(ctx)
}

// waitReady waits until everything that up installs is usable.
func (c Config) waitReady(ctx context.Context) error {
	namespace := "--namespace=" + c.Velero.Namespace
	waits := [][]string{
		{"wait", "--for=condition=Ready", "--all", "node"},
		{"rollout", "status", "--namespace=kube-system", "deployment/coredns"},
		{"rollout", "status", "--namespace=local-path-storage", "deployment/local-path-provisioner"},
		{"rollout", "status", namespace, "deployment/velero"},
		{"wait", "--for=jsonpath={.status.phase}=Available", namespace, "backupstoragelocation/default"},
	}
	if c.Velero.FSB {
		waits = append(waits, []string{"rollout", "status", namespace, "daemonset/node-agent"})
	}
	for _, args := range waits {
		if _, err := c.kubectl(ctx, append(args, "--timeout=180s")...); err != nil {
			return fmt.Errorf("wait for the cluster: %w", err)
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
