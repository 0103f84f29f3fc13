package cluster

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed manifests/*.yaml
var manifestFiles embed.FS

// manifest fills in one of the files in manifests/.
func (c Config) manifest(name string) ([]byte, error) {
	type node struct{ Name, Volumes string }
	data := struct {
		CoreDNSImage, LocalPathImage, BusyboxImage string
		DNS                                        string
		Nodes                                      []node
	}{CoreDNSImage: coreDNSImage, LocalPathImage: localPathImage, BusyboxImage: BusyboxImage, DNS: c.Network.DNS.String()}
	for _, n := range c.Nodes {
		data.Nodes = append(data.Nodes, node{n.Name, filepath.Join(c.nodeDir(n.Name), "volumes")})
	}
	t, err := template.New(name).Option("missingkey=error").ParseFS(manifestFiles, "manifests/"+name)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("fill in manifest %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// apply hands objects to the API server; what is as it should be stays untouched.
func (c Config) apply(ctx context.Context, what string, objects []byte) error {
	cmd, err := c.Command(ctx, "kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = bytes.NewReader(objects)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply %s: %w: %s", what, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// kubectl runs one command and returns what it printed.
func (c Config) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd, err := c.Command(ctx, "kubectl", args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// veleroInstall is the command line a user would type, with --dry-run.
func (c Config) veleroInstall() []string {
	args := []string{
		"install", "--dry-run", "--output=yaml",
		"--namespace=" + c.Velero.Namespace, "--image=" + VeleroImage,
		"--plugins=" + awsPluginImage, "--secret-file=" + c.credentialsFile(), "--use-volume-snapshots=false",
	}
	if c.S3.Of == "" {
		args = append(args, "--provider=aws", "--bucket="+c.S3.Bucket,
			fmt.Sprintf("--backup-location-config=region=%s,s3ForcePathStyle=true,s3Url=%s", c.S3.Region, c.S3URL()))
	} else {
		args = append(args, "--no-default-backup-location")
	}
	if c.Velero.FSB {
		args = append(args, "--use-node-agent")
	}
	return args
}

func (c Config) credentialsFile() string { return filepath.Join(c.Dir, "s3-credentials") }

// installVelero applies what `velero install` prints. The installer's own waiting is slow, and its
// custom resources need definitions that are already served.
func (c Config) installVelero(ctx context.Context) error {
	credentials := fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", c.S3.AccessKey, c.S3.SecretKey)
	if err := writeFile(c.credentialsFile(), []byte(credentials), 0o600); err != nil {
		return err
	}
	definitions, err := c.veleroPrints(ctx, "install", "--crds-only", "--dry-run", "--output=yaml")
	if err != nil {
		return err
	}
	if err := c.apply(ctx, "Velero's definitions", definitions); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "component=velero"); err != nil {
		return err
	}
	objects, err := c.veleroPrints(ctx, c.veleroInstall()...)
	if err != nil {
		return err
	}
	return c.apply(ctx, "Velero", objects)
}

func (c Config) veleroPrints(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.program("velero"), args...)
	cmd.Env = c.environment()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("velero %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
