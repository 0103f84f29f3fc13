package enginetest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
)

// file is one entry of a tree in memory.
type file struct {
	mode     fs.FileMode
	uid, gid int
	modTime  time.Time
	data     string // of a regular file
	target   string // of a link
}

// files is a tree in memory, by paths relative to its root, which is ".".
type files map[string]file

// folderPath returns a path to an open folder.
func folderPath(root *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", root.Fd()) }

// readFiles reads a tree. Fifos, sockets and devices are left out.
func readFiles(root string) (files, error) {
	all := files{}

	// The slash makes the walk follow the link that a path below /proc is.
	err := filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}

		f, ok, err := readFile(path, d)
		if ok {
			all[rel] = f
		}

		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}

	return all, nil
}

func readFile(path string, d fs.DirEntry) (file, bool, error) {
	info, err := d.Info()
	if err != nil {
		return file{}, false, err
	}

	if d.IsDir() { // Of the root, Info is about the link below /proc.
		if info, err = os.Stat(path); err != nil {
			return file{}, false, err
		}
	}

	f := file{mode: info.Mode(), modTime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.uid, f.gid = int(st.Uid), int(st.Gid)
	}

	switch info.Mode().Type() {
	case fs.ModeDir:
	case fs.ModeSymlink:
		f.mode = fs.ModeSymlink
		f.target, err = os.Readlink(path)
	case 0:
		var b []byte

		b, err = os.ReadFile(path)
		f.data = string(b)
	default:
		return file{}, false, nil
	}

	return f, true, err
}

// paths returns the paths, folders before what is in them.
func (f files) paths() []string {
	list := make([]string, 0, len(f))
	for p := range f {
		list = append(list, p)
	}

	sort.Strings(list)

	return list
}

// bytes returns the size of all regular files.
func (f files) bytes() int64 {
	var n int64
	for _, e := range f {
		n += int64(len(e.data))
	}

	return n
}

// write writes the tree, replacing what bears the same names.
func (f files) write(root string) error {
	list := f.paths()

	for _, p := range list {
		if err := f[p].make(root + "/" + p); err != nil {
			return err
		}
	}

	// Times of folders last, and the inner ones first.
	for i := len(list) - 1; i >= 0; i-- {
		if err := f[list[i]].attributes(root + "/" + list[i]); err != nil {
			return err
		}
	}

	return nil
}

func (f file) make(path string) error {
	if there, err := os.Lstat(path); err == nil && there.IsDir() && f.mode.IsDir() {
		return nil
	}

	if err := os.RemoveAll(path); err != nil {
		return err
	}

	if f.mode.IsDir() {
		return os.Mkdir(path, 0o700)
	}

	if f.mode.Type() == fs.ModeSymlink {
		return os.Symlink(f.target, path)
	}

	return os.WriteFile(path, []byte(f.data), 0o600)
}

func (f file) attributes(path string) error {
	if err := os.Lchown(path, f.uid, f.gid); err != nil {
		return err
	}

	if f.mode.Type() != fs.ModeSymlink {
		if err := os.Chmod(path, f.mode); err != nil {
			return err
		}
	}

	t := unix.NsecToTimespec(f.modTime.UnixNano())

	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// summary counts the entries: files, folders, links.
func (f files) count() (regular, folders, links int64) {
	for _, e := range f {
		switch e.mode.Type() {
		case fs.ModeDir:
			folders++
		case fs.ModeSymlink:
			links++
		default:
			regular++
		}
	}

	return regular, folders, links
}

// vacant refuses a folder that holds data where it must hold none.
func vacant(r engine.RestoreRequest) error {
	if !r.Guarded() {
		return nil
	}

	root := folderPath(r.Root) + "/"

	entries, err := os.ReadDir(root)
	if err != nil {
		return engine.Errorf(engine.CodeTargetUnwritable, "restore: %w", err)
	}

	var found []string

	for _, e := range entries {
		in, err := os.ReadDir(root + e.Name())
		if e.Name() == engine.LostAndFound && e.IsDir() && err == nil && len(in) == 0 {
			continue
		}

		found = append(found, strconv.Quote(e.Name()))
	}

	if len(found) > 0 {
		return engine.Errorf(engine.CodeTargetNotEmpty, "restore: %s holds data already: it has %s", r.Description, strings.Join(found, ", "))
	}

	return nil
}

// removeOthers removes from the folder what is not in the tree.
func (f files) removeOthers(root string) error {
	there, err := readFiles(root)
	if err != nil {
		return err
	}

	for p := range there {
		if _, has := f[p]; has || p == engine.LostAndFound {
			continue
		}

		if err := os.RemoveAll(root + "/" + p); err != nil {
			return err
		}
	}

	return nil
}
