// Command install-plugin copies the plugins of the image into the folder that
// Velero's server loads plugins from. It is the entry point of the image, so
// that the init container that `velero plugin add` makes needs no arguments.
package main

import (
	"errors"
	"fmt"
	"io"
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
// of it, and one that runs can be replaced. Its temporary name isn't executable
// until it is whole: Velero takes every executable file of the folder for a plugin.
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
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()

	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, out.Name(), err)
	}

	if err = os.Chmod(out.Name(), executable); err != nil {
		return err
	}

	return os.Rename(out.Name(), to)
}
