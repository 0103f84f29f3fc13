// Command install-plugin copies the plugins of the image into the folder that
// Velero's server loads plugins from. It is the entry point of the image, so
// that the init container that `velero plugin add` makes needs no arguments.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	source = "/plugins"
	target = "/target"
	// executable is the mode of an installed plugin: Velero's server, which may
	// run as any user, executes it.
	executable = 0o755
)

func main() {
	if err := install(source, target, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "install-plugin:", err)
		os.Exit(1)
	}
}

// install copies every regular file of one folder into another.
func install(from, to string, log io.Writer) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("look for plugins: %w", err)
	}

	installed := 0

	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}

		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return fmt.Errorf("install plugin %s: %w", e.Name(), err)
		}

		_, _ = fmt.Fprintf(log, "installed %s\n", filepath.Join(to, e.Name()))
		installed++
	}

	if installed == 0 {
		return fmt.Errorf("install plugins: %s holds none", from)
	}

	return nil
}

// copyFile puts a copy in place by a rename, so that nobody ever executes half
// of it, and one that runs can be replaced. It becomes executable only under its
// own name: Velero takes every executable file of the folder for a plugin, and
// ends itself over two that say the same. Killed in between, it is not executable,
// and the init container that runs again mends that.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from

	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return err
	}

	defer func() {
		if err != nil {
			// After the rename there is nothing of that name.
			if gone := os.Remove(out.Name()); !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
	}()

	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, out.Name(), err)
	}

	if err = os.Rename(out.Name(), to); err != nil {
		return err
	}

	return os.Chmod(to, executable)
}
