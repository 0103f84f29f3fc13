// Package tree makes and compares folders in tests: entry by entry, by what lstat
// and reading show. It must not use anything of what it helps to test.
package tree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

// Attribute is one thing about an entry that a copy can have wrong.
type Attribute string

// The attributes.
const (
	Presence   Attribute = "presence"
	Type       Attribute = "type"
	Mode       Attribute = "mode"
	Owner      Attribute = "owner"
	Size       Attribute = "size"
	Content    Attribute = "content"
	ModTime    Attribute = "mtime"
	LinkTarget Attribute = "target"
	// HardLinks are the other names of the same file in the folder.
	HardLinks Attribute = "hard links"
)

// Difference is one attribute of one entry that differs.
type Difference struct {
	// Path is relative to the root; "." is the root itself.
	Path      string
	Attribute Attribute
	Want, Got string
}

// String describes the difference in a line.
func (d Difference) String() string {
	return fmt.Sprintf("%q: %s is %s, want %s", d.Path, d.Attribute, d.Got, d.Want)
}

// Option changes what is compared.
type Option func(*settings)

type settings struct {
	without map[Attribute]bool
	skip    func(path string) bool
}

// Without leaves attributes out of the comparison.
func Without(attributes ...Attribute) Option {
	return func(s *settings) {
		for _, a := range attributes {
			s.without[a] = true
		}
	}
}

// Skip leaves entries, with all below them, out on both sides. The path is
// relative to the root.
func Skip(skip func(path string) bool) Option {
	return func(s *settings) { s.skip = skip }
}

type seen struct {
	kind, mode, owner, size, content, mtime, target, links string
	// inode is the device and the number; names counts the inode's names, here and elsewhere.
	inode [2]uint64
	names uint64
}

// Compare walks two folders without following a link and lists what differs, in
// the order of the paths: got is compared to want.
func Compare(want, got string, options ...Option) ([]Difference, error) {
	s := settings{without: map[Attribute]bool{}, skip: func(string) bool { return false }}
	for _, o := range options {
		o(&s)
	}

	w, err := walk(want, s)
	if err != nil {
		return nil, err
	}

	g, err := walk(got, s)
	if err != nil {
		return nil, err
	}

	var all []Difference

	for _, path := range union(w, g) {
		for _, d := range differences(path, w[path], g[path]) {
			if !s.without[d.Attribute] {
				all = append(all, d)
			}
		}
	}

	return all, nil
}

func union(a, b map[string]*seen) []string {
	paths := make([]string, 0, len(a))
	for p := range a {
		paths = append(paths, p)
	}

	for p := range b {
		if a[p] == nil {
			paths = append(paths, p)
		}
	}

	sort.Strings(paths)

	return paths
}

func differences(path string, want, got *seen) []Difference {
	if want == nil {
		return []Difference{{path, Presence, "nothing", got.kind}}
	}

	if got == nil {
		return []Difference{{path, Presence, want.kind, "nothing"}}
	}

	if want.kind != got.kind {
		return []Difference{{path, Type, want.kind, got.kind}}
	}

	var all []Difference

	for _, c := range []struct {
		attribute Attribute
		want, got string
	}{
		{Mode, want.mode, got.mode},
		{Owner, want.owner, got.owner},
		{Size, want.size, got.size},
		{Content, want.content, got.content},
		{ModTime, want.mtime, got.mtime},
		{LinkTarget, want.target, got.target},
		{HardLinks, want.links, got.links},
	} {
		if c.want != c.got {
			all = append(all, Difference{path, c.attribute, c.want, c.got})
		}
	}

	return all
}

func walk(root string, s settings) (map[string]*seen, error) {
	all := map[string]*seen{}

	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}

		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}

		if s.skip(rel) {
			if d.IsDir() {
				return filepath.SkipDir
			}

			return nil
		}

		all[rel], err = look(path, s)

		return err
	})
	if err != nil {
		return nil, fmt.Errorf("walk %s: %w", root, err)
	}

	noteLinks(all)

	return all, nil
}

// noteLinks notes on each file its names, where it has several in the folder.
func noteLinks(all map[string]*seen) {
	names := map[[2]uint64][]string{}

	for path, e := range all {
		if e.kind == "file" && e.names > 1 {
			names[e.inode] = append(names[e.inode], path)
		}
	}

	for _, paths := range names {
		if len(paths) == 1 {
			continue
		}

		sort.Strings(paths)
		links := fmt.Sprintf("%q", paths)

		for _, path := range paths {
			all[path].links = links
		}
	}
}

func look(path string, s settings) (*seen, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("lstat %q: %w", path, err)
	}

	e := &seen{
		kind:  kind(st.Mode),
		mode:  fmt.Sprintf("%04o", st.Mode&0o7777),
		owner: fmt.Sprintf("%d:%d", st.Uid, st.Gid),
		mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec).UTC().Format(time.RFC3339Nano),
		inode: [2]uint64{st.Dev, st.Ino},
		names: st.Nlink,
	}

	var err error

	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.size = fmt.Sprint(st.Size)

		if !s.without[Content] {
			e.content, err = digest(path)
		}
	case unix.S_IFLNK:
		e.mode = "" // It has none of its own.
		e.target, err = os.Readlink(path)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.target = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}

	return e, err
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "folder"
	case unix.S_IFLNK:
		return "link"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	}

	return "unknown"
}

func digest(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}

	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
