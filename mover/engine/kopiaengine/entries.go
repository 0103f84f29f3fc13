package kopiaengine

import (
	"context"
	"errors"
	"io/fs"
	"time"

	kfs "github.com/kopia/kopia/fs"

	"github.com/estiba-dev/estiba/mover/beneath"
)

// node is what all entries that kopia gets to see have in common. It implements
// kfs.Entry, and deliberately not snapshot.HasDirEntryOrNil: no file of a volume
// stands for something in the repository.
type node struct {
	src   *source
	dir   *beneath.Dir // the folder that holds it; nil for the root
	entry beneath.Entry
	name  string // under which it is kept
	path  string // raw, relative to the root
}

func (n *node) Name() string { return n.name }

func (n *node) Size() int64 { return n.entry.Size }

func (n *node) Mode() fs.FileMode {
	m := fs.FileMode(n.entry.Mode) & fs.ModePerm

	if n.entry.Mode&0o4000 != 0 {
		m |= fs.ModeSetuid
	}

	if n.entry.Mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}

	if n.entry.Mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}

	return m
}

// unlessKnown returns a mode with a bit that kopia compares and does not keep where the
// entry must be read whatever an earlier snapshot says.
func (n *node) unlessKnown() fs.FileMode {
	if n.src.mustRead(n.path, n.entry) {
		return n.Mode() | fs.ModeTemporary
	}

	return n.Mode()
}

func (n *node) ModTime() time.Time { return n.entry.ModTime }

func (n *node) IsDir() bool { return false }

func (n *node) Sys() any { return nil }

func (n *node) Owner() kfs.OwnerInfo {
	return kfs.OwnerInfo{UserID: n.entry.UID, GroupID: n.entry.GID}
}

func (n *node) Device() kfs.DeviceInfo { return kfs.DeviceInfo{} }

// LocalFilesystemPath is empty: kopia must not open anything by path.
func (n *node) LocalFilesystemPath() string { return "" }

func (n *node) Close() {}

// fail writes down why the entry could not be read, and returns the error for kopia.
func (n *node) fail(err error) error { return n.src.fail(n.path, n.entry.Kind, err) }

// reopens is how often an entry is looked up anew that something else of its kind has
// taken the place of: whoever replaces a file again and again must not keep it from the snapshot.
const reopens = 100

// opened opens an entry, or what has taken its place since the listing, which counts as
// changed, so that another pass puts it right.
func opened[T any](n *node, open func(beneath.Entry) (T, error)) (T, error) {
	t, err := open(n.entry)

	for i := 0; i < reopens && errors.Is(err, beneath.ErrChanged); i++ {
		e, gone := n.dir.Lookup(n.entry.Name)
		if gone != nil {
			return t, gone
		}

		if t, err = open(e); err == nil {
			n.src.markChanged(n.path)
		}
	}

	return t, err
}

// join returns the raw path of an entry.
func join(dir, name string) string {
	if dir == "" {
		return name
	}

	return dir + "/" + name
}

// symlink implements kfs.Symlink.
type symlink struct{ node }

func (l *symlink) Mode() fs.FileMode { return l.unlessKnown() | fs.ModeSymlink }

func (l *symlink) Readlink(context.Context) (string, error) {
	target, err := opened(&l.node, l.dir.ReadLink)
	if err != nil {
		return "", l.fail(err)
	}

	return target, nil
}

func (l *symlink) Resolve(context.Context) (kfs.Entry, error) {
	return nil, errors.New("links are kept, never followed")
}

// file implements kfs.File.
type file struct{ node }

func (f *file) Mode() fs.FileMode { return f.unlessKnown() }

// Open opens the file. If another one has taken its place since the listing, the
// content is the new one's under the attributes of the old one; it counts as
// changed, so that another pass puts it right.
func (f *file) Open(context.Context) (kfs.Reader, error) {
	r, err := opened(&f.node, f.dir.OpenFile)
	if err != nil {
		return nil, f.fail(err)
	}

	return &reader{File: r, file: f}, nil
}

// reader counts what is read, and looks at the end whether the file has stayed
// what it was. Kopia may read a big file through several of them.
type reader struct {
	*beneath.File

	file *file
}

func (r *reader) Entry() (kfs.Entry, error) { return r.file, nil }

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.File.Read(p)
	r.file.src.readBytes.Add(int64(n))

	if err == nil || isEOF(err) {
		return n, err
	}

	return n, r.file.fail(err)
}

// Close compares what the file is now with what the listing and the opening said.
// A failure to look leaves the content in doubt, which is what "changed" means.
func (r *reader) Close() error {
	now, err := r.Stat()
	if err != nil || !now.Unchanged(r.File.Entry()) ||
		now.Size != r.file.entry.Size || !now.ModTime.Equal(r.file.entry.ModTime) {
		r.file.src.markChanged(r.file.path)
	}

	return r.File.Close()
}
