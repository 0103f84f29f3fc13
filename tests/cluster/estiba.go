package cluster

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// installTimeout bounds the roll-out of Estiba; it takes some 10 s.
const installTimeout = 4 * time.Minute

// InstallEstiba installs Estiba the way its README tells: the manifests of a
// checkout, applied by kustomize with the image and Velero's namespace set, and
// the plugin added by `velero plugin add`. Running it again with another image
// updates what runs.
func (c Config) InstallEstiba(ctx context.Context, out io.Writer, manifests, tarball string) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()

	p := newProgress(out, time.Now)
	p.step("installing Estiba into namespace "+c.Velero.Namespace, 0, 0)
	image, err := imageName(tarball)
	if err != nil {
		return err
	}
	if err := c.loadAs(ctx, c.Nodes, tarball, strings.ReplaceAll(image, "/", "_")); err != nil {
		return err
	}
	if err := c.writeOverlay(manifests, image); err != nil {
		return err
	}
	if err := c.applyEstiba(ctx); err != nil {
		return err
	}
	p.line("Estiba is installed: " + image)
	return nil
}

// Reinstall puts Velero and Estiba back into a cluster that somebody removed
// them from; InstallEstiba must have been run before. It works inside, too.
func (c Config) Reinstall(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()

	if err := c.installVelero(ctx); err != nil {
		return err
	}
	return c.applyEstiba(ctx)
}

func (c Config) overlayDir() string { return filepath.Join(c.Dir, "estiba", "overlay") }

// writeOverlay copies the manifests and lays an overlay beside them: kustomize takes no absolute paths.
func (c Config) writeOverlay(manifests, image string) error {
	base := filepath.Join(c.Dir, "estiba", "base")
	if err := os.RemoveAll(base); err != nil {
		return fmt.Errorf("replace the copy of the manifests: %w", err)
	}
	if err := os.CopyFS(base, os.DirFS(manifests)); err != nil {
		return fmt.Errorf("copy the manifests: %w", err)
	}
	name, tag, _ := strings.Cut(image, ":")
	overlay := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources: [../base]\n"+
		"images: [{name: estiba, newName: %s, newTag: %q}]\n", c.Velero.Namespace, name, tag)
	return errors.Join(
		writeFile(filepath.Join(c.overlayDir(), "kustomization.yaml"), []byte(overlay), 0o644),
		writeFile(filepath.Join(c.overlayDir(), "image"), []byte(image), 0o644))
}

func (c Config) applyEstiba(ctx context.Context) error {
	image, err := os.ReadFile(filepath.Join(c.overlayDir(), "image"))
	if err != nil {
		return fmt.Errorf("find out what was installed: %w", err)
	}
	if _, err := c.kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-k", c.overlayDir()); err != nil {
		return err
	}
	if err := c.addPlugin(ctx, string(image)); err != nil {
		return err
	}
	namespace := "--namespace=" + c.Velero.Namespace
	for _, workload := range []string{"deployment/velero", "deployment/estiba-controller", "daemonset/estiba-node"} {
		if _, err := c.kubectl(ctx, "rollout", "status", namespace, workload, "--timeout=180s"); err != nil {
			return fmt.Errorf("wait for Estiba: %w", err)
		}
	}
	if err := c.waitOneServer(ctx); err != nil {
		return err
	}
	return c.waitLocation(ctx)
}

// waitOneServer waits until the Velero server from before the plugin was added has ended: while it lives, it may
// take on a backup or a restore, and knows nothing of the plugin.
func (c Config) waitOneServer(ctx context.Context) error {
	for {
		out, err := c.kubectl(ctx, "get", "pods", "--namespace="+c.Velero.Namespace, "--selector=deploy=velero", "--output=name")
		if err != nil {
			return err
		}
		if strings.Count(out, "\n") == 1 {
			return nil
		}
		if pause(ctx, 200*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("wait for the former Velero server to end: %w", ctx.Err())
		}
	}
}

// addPlugin adds the plugin, or exchanges the image of the one that is there.
func (c Config) addPlugin(ctx context.Context, image string) error {
	const list = `jsonpath={range .spec.template.spec.initContainers[*]}{.name} {.image}{"\n"}{end}`
	namespace := "--namespace=" + c.Velero.Namespace
	out, err := c.kubectl(ctx, "get", namespace, "deployment/velero", "-o", list)
	if err != nil {
		return err
	}
	repository, _, _ := strings.Cut(image, ":")
	for line := range strings.Lines(out) {
		name, now, _ := strings.Cut(strings.TrimSpace(line), " ")
		if now == image {
			return nil
		}
		if strings.HasPrefix(now, repository+":") {
			_, err := c.kubectl(ctx, "set", "image", namespace, "deployment/velero", name+"="+image)
			return err
		}
	}
	cmd, err := c.Command(ctx, "velero", namespace, "plugin", "add", image, "--image-pull-policy=IfNotPresent", "--confirm")
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("velero plugin add %s: %w: %s", image, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// imageName reads the name out of a docker-archive.
func imageName(tarball string) (string, error) {
	f, err := os.Open(tarball)
	if err != nil {
		return "", fmt.Errorf("read image (`make images` makes it): %w", err)
	}
	defer func() { _ = f.Close() }()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return "", fmt.Errorf("read image %s: no manifest in it: %w", tarball, err)
		}
		if h.Name != "manifest.json" {
			continue
		}
		var m []struct{ RepoTags []string }
		if err := json.NewDecoder(r).Decode(&m); err != nil {
			return "", fmt.Errorf("read image %s: manifest: %w", tarball, err)
		}
		if len(m) != 1 || len(m[0].RepoTags) != 1 {
			return "", fmt.Errorf("read image %s: %w: expected one image with one name", tarball, fs.ErrInvalid)
		}
		return m[0].RepoTags[0], nil
	}
}
