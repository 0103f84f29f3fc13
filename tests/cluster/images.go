package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/estiba-dev/estiba/tests/cluster/image"
	"github.com/estiba-dev/estiba/tests/cluster/parts"
)

// Names of the images that are in every cluster. Those of Velero and its plugin are the ones that their
// own manifests ask for.
const (
	BusyboxImage   = "estiba.test/busybox:1"
	VeleroImage    = "velero/velero:" + parts.VeleroVersion
	awsPluginImage = "velero/velero-plugin-for-aws:" + parts.AWSPluginVersion
	coreDNSImage   = "registry.k8s.io/coredns/coredns:" + parts.CoreDNSVersion
	localPathImage = "docker.io/rancher/local-path-provisioner:" + parts.LocalPathVersion
)

// passwd names the users of the images and their homes.
const passwd = `root:x:0:0:root:/root:/bin/sh
cnb:x:1002:1000:cnb:/home/cnb:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
`

// base is what every image holds.
func base() []image.File {
	return []image.File{
		{Path: "/etc/passwd", Content: passwd, Mode: 0o644},
		{Path: "/etc/group", Content: "root:x:0:\ncnb:x:1000:\nnonroot:x:65532:\nnobody:x:65534:\n", Mode: 0o644},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/root", Mode: fs.ModeDir | 0o700},
		{Path: "/home/cnb", Mode: fs.ModeDir | 0o755, UID: 1002, GID: 1000},
		{Path: "/home/nonroot", Mode: fs.ModeDir | 0o755, UID: 65532, GID: 65532},
	}
}

func program(path, source string) image.File {
	return image.File{Path: path, Source: source, Mode: 0o755}
}

// images describes the images; applets are the commands that busybox stands for.
func (c Config) images(applets []string) []image.Image {
	bin := func(name string) string { return parts.Cache{Dir: c.CacheDir}.Find(name) }
	busybox := append(base(), program("/bin/busybox", "/bin/busybox"))
	for _, name := range applets {
		if name != "busybox" {
			busybox = append(busybox, image.File{Path: "/bin/" + name, Link: "busybox"})
		}
	}
	return []image.Image{
		{
			Name: pauseImage, User: "65532:65532",
			Files:      append(base(), program("/tini", "/usr/bin/tini-static"), program("/busybox", "/bin/busybox")),
			Entrypoint: []string{"/tini", "--", "/busybox", "sleep", "2147483647"},
		},
		{Name: BusyboxImage, Files: busybox, Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}},
		{
			Name: coreDNSImage, User: "65532:65532", Entrypoint: []string{"/coredns"},
			Files: append(base(), program("/coredns", bin("coredns"))),
		},
		{
			Name: localPathImage, Entrypoint: []string{"/local-path-provisioner"},
			Files: append(base(), program("/local-path-provisioner", bin("local-path-provisioner"))),
		},
		{
			Name: "docker.io/" + VeleroImage, User: "1002:1000", Entrypoint: []string{"/velero"},
			Files: append(base(), program("/velero", bin("velero")), program("/velero-helper", bin("velero-helper")),
				program("/velero-restore-helper", bin("velero-restore-helper"))),
		},
		{
			Name: "docker.io/" + awsPluginImage, User: "65532:65532",
			Files: append(base(), program("/plugins/velero-plugin-for-aws", bin("velero-plugin-for-aws")),
				program("/bin/cp-plugin", bin("cp-plugin"))),
			Entrypoint: []string{"/bin/cp-plugin", "/plugins/velero-plugin-for-aws", "/target/velero-plugin-for-aws"},
		},
	}
}

// buildImages writes the tarballs that the cache lacks and returns all their paths.
func (c Config) buildImages(ctx context.Context) ([]string, error) {
	applets, err := applets(ctx)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, img := range c.images(applets) {
		digest, err := image.Digest(img)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(c.CacheDir, "images", fileName(img.Name)+"-"+digest+".tar")
		paths = append(paths, path)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := image.WriteFile(path, img); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// applets lists the commands that busybox stands for.
func applets(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "/bin/busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the commands of busybox: %w", err)
	}
	return strings.Fields(string(out)), nil
}

func fileName(reference string) string {
	return strings.NewReplacer("/", "_", ":", "_").Replace(reference)
}

// LoadImage imports a docker-archive tarball into the nodes, so that pods find its images without a registry.
func (c Config) LoadImage(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("find image %s: %w", path, err)
	}
	for _, n := range c.Nodes {
		if err := c.loadOn(ctx, n, path); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) loadOn(ctx context.Context, n Node, path string) error {
	cmd, err := c.commandOn(ctx, n, "ctr", "--namespace=k8s.io", "images", "import", path)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import image %s into node %s: %w: %s", path, n.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// loadAs imports a tarball into those of the nodes that lack it; the key stands for the tarball's content.
func (c Config) loadAs(ctx context.Context, nodes []Node, path, key string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("find image %s: %w", path, err)
	}
	for _, n := range nodes {
		marker := filepath.Join(c.nodeDir(n.Name), "images", key)
		_, err := os.Stat(marker)
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look for image %s: %w", path, err)
		}
		if err := c.loadOn(ctx, n, path); err != nil {
			return err
		}
		if err := writeFile(marker, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
