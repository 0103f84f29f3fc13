package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/tests/cluster/image"
)

// PostgreSQLImage is a PostgreSQL beside a busybox, made of the distribution's packages. Its tag is one of how it is
// made, not of what is in it: whatever version the distribution had when it was made is good.
const PostgreSQLImage = "estiba.test/postgresql:1"

// LoadPostgreSQL imports PostgreSQLImage into the first node, where pods run. The first time it downloads some 40 MB of packages; it
// installs none of them.
func (c Config) LoadPostgreSQL(ctx context.Context, out io.Writer) error {
	path := filepath.Join(c.CacheDir, "images", fileName(PostgreSQLImage)+".tar")
	p := newProgress(out, time.Now)

	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		p.step("making an image of PostgreSQL from Debian packages", 30*time.Second, 0)
		if err := c.makePostgreSQL(ctx, path); err != nil {
			return err
		}
	}

	return c.loadAs(ctx, c.Nodes[:1], path, filepath.Base(path))
}

func (c Config) makePostgreSQL(ctx context.Context, path string) error {
	packages, err := postgresPackages(ctx)
	if err != nil {
		return err
	}

	temp, err := os.MkdirTemp(c.CacheDir, ".postgresql-")
	if err != nil {
		return fmt.Errorf("make the image of PostgreSQL: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()

	root := filepath.Join(temp, "root")
	if err := unpack(ctx, packages, temp, root); err != nil {
		return err
	}

	files, err := treeOf(root)
	if err != nil {
		return err
	}

	programs, err := filepath.Glob(filepath.Join(root, "usr/lib/postgresql/*/bin"))
	if err != nil || len(programs) != 1 {
		return fmt.Errorf("the packages %v have %d folders of PostgreSQL's programs, expected 1", packages, len(programs))
	}

	busybox, err := busyboxAside(ctx)
	if err != nil {
		return err
	}

	return image.WriteFile(path, image.Image{
		Name: PostgreSQLImage, Files: append(files, busybox...), User: "65532:65532",
		Env: []string{"PATH=" + strings.TrimPrefix(programs[0], root) + ":/busybox"},
	})
}

// busyboxAside returns the files of an image whose /bin is taken: a shell there, and the rest in a folder of its own.
func busyboxAside(ctx context.Context) ([]image.File, error) {
	applets, err := applets(ctx)
	if err != nil {
		return nil, err
	}

	files := append(base(), program("/busybox/busybox", "/bin/busybox"), image.File{Path: "/usr/bin/sh", Link: "/busybox/busybox"})
	for _, name := range applets {
		if name != "busybox" {
			files = append(files, image.File{Path: "/busybox/" + name, Link: "busybox"})
		}
	}

	return files, nil
}

// postgresPackages asks apt what PostgreSQL needs on a machine that has nothing, and leaves out what the server runs
// without: its wrappers in Perl, and LLVM, which it compiles large queries with.
func postgresPackages(ctx context.Context) ([]string, error) {
	ask := func() ([]byte, error) {
		return exec.CommandContext(ctx, "apt-get", "--simulate", "--no-install-recommends", "--option", "Dir::State::status=/dev/null", "install", "postgresql").CombinedOutput()
	}

	text, err := ask()
	if err != nil {
		// The lists may be missing, as they are in a fresh container.
		if out, err := exec.CommandContext(ctx, "apt-get", "update", "--quiet").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("update the lists of packages: %w: %s", err, out)
		}

		if text, err = ask(); err != nil {
			return nil, fmt.Errorf("find out which packages PostgreSQL needs: %w: %s", err, text)
		}
	}

	return serverPackages(string(text)), nil
}

func serverPackages(simulation string) []string {
	var names []string

	wanted := regexp.MustCompile(`^(lib.+|zlib1g|postgresql-[0-9]+|postgresql-client-[0-9]+)$`)
	spare := regexp.MustCompile(`^lib(llvm|z3|perl|pam-)|-(perl|common)$`)

	for line := range strings.Lines(simulation) {
		words := strings.Fields(line)
		if len(words) > 1 && words[0] == "Inst" && wanted.MatchString(words[1]) && !spare.MatchString(words[1]) {
			names = append(names, words[1])
		}
	}

	return names
}

// unpack downloads packages into a folder and lays them out below root, where /lib and the like are the links that
// Debian and Ubuntu have today.
func unpack(ctx context.Context, packages []string, folder, root string) error {
	for _, dir := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			return fmt.Errorf("lay out the packages of PostgreSQL: %w", err)
		}

		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return fmt.Errorf("lay out the packages of PostgreSQL: %w", err)
		}
	}

	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"download", "--quiet"}, packages...)...)
	cmd.Dir = folder

	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("download the packages of PostgreSQL: %w: %s", err, out)
	}

	found, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return fmt.Errorf("list the packages of PostgreSQL: %w", err)
	}

	const script = `for deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$0" || exit 1; done`

	cmd = exec.CommandContext(ctx, "sh", append([]string{"-c", script, root}, found...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack the packages of PostgreSQL: %w: %s", err, out)
	}

	return nil
}

// treeOf lists what lies below root, without what a server doesn't read.
func treeOf(root string) ([]image.File, error) {
	var files []image.File

	spare := []string{"doc", "man", "locale", "info", "lintian", "bitcode"}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if entry.IsDir() {
			if slices.Contains(spare, entry.Name()) {
				return filepath.SkipDir
			}

			return nil
		}

		info, err := entry.Info()
		if err != nil {
			return err
		}

		file := image.File{Path: strings.TrimPrefix(path, root), Source: path, Mode: info.Mode().Perm()}
		if info.Mode()&fs.ModeSymlink != 0 {
			if file.Link, err = os.Readlink(path); err != nil {
				return err
			}
		}

		files = append(files, file)

		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the files of PostgreSQL: %w", err)
	}

	return files, nil
}
