package kopiaengine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	kfs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

const linksTag = tagPrefix + contract.TagLinks

// putLinks saves a manifest that names the list of hard links, so that whoever removes what no snapshot needs leaves
// it, and writes on the snapshot, which is to be saved next, where it is.
func (b *backup) putLinks(ctx context.Context, w repo.RepositoryWriter, m *snapshot.Manifest, list string) error {
	if list == "" {
		return nil
	}

	m.Tags[linksTag] = list

	entry, err := linkEntry(m)
	if err != nil {
		return err
	}

	beside := &snapshot.Manifest{
		Source:      m.Source,
		Description: "hard links of job " + b.request.Job,
		StartTime:   m.StartTime,
		EndTime:     m.EndTime,
		RootEntry:   entry,
		Pins:        []string{pin},
		Tags:        sidecarLabels(b.request.Job, b.request.Tags),
	}
	beside.Source.UserName = contract.SidecarUser

	if _, err := snapshot.SaveSnapshot(ctx, w, beside); err != nil {
		return fmt.Errorf("save the list of hard links: %w", err)
	}

	return nil
}

// linkEntry returns the list of hard links of a snapshot as an entry; nil if there is none.
func linkEntry(m *snapshot.Manifest) (*snapshot.DirEntry, error) {
	list, ok := m.Tags[linksTag]
	if !ok {
		return nil, nil //nolint:nilnil // The answer is "none", and that is well.
	}

	id, err := object.ParseID(list)
	if err != nil || id == object.EmptyID {
		return nil, fmt.Errorf("%w: snapshot %s: tag %s is %.80q, which is no object", errLinks, m.ID, contract.TagLinks, list)
	}

	return &snapshot.DirEntry{Name: "hardlinks", Type: snapshot.EntryTypeFile, ObjectID: id}, nil
}

// maxLinks is how many names of hard links a restore keeps in mind, at some 100 bytes each. What is beyond becomes a
// file of its own, and is counted.
const maxLinks = 2_000_000

// links knows which files of a snapshot are one. Paths are told apart by their hashes.
type links struct {
	inodes map[[2]uint64]*inode
	names  map[[16]byte]*inode
	// more says that there are names beyond those in mind.
	more bool
}

// inode is a file that has several names.
type inode struct {
	// names is how many of them there are in the snapshot.
	names int32

	mu sync.Mutex
	// done is how many of them were gone through.
	done int32
	// first is the one that was written last, as long as others may come.
	first *firstName
}

// firstName is what the other names of a file have to be like, and are linked to. A restore may have one for each of
// a million files, so that it holds on to nothing else.
type firstName struct {
	in   *way
	name string

	device, number uint64
	like           likeness
}

// likeness is what the snapshot has under all names of a file.
type likeness struct {
	content  object.ID
	size     int64
	mode     snapshot.Permissions
	uid, gid uint32
	modified kfs.UTCTimestamp
}

func likenessOf(e *snapshot.DirEntry) likeness {
	return likeness{content: e.ObjectID, size: e.FileSize, mode: e.Permissions, uid: e.UserID, gid: e.GroupID, modified: e.ModTime}
}

func pathKey(path string) (key [16]byte) {
	sum := sha256.Sum256([]byte(path))
	copy(key[:], sum[:])

	return key
}

// of returns the file that a path is one of the names of; nil if it has no other.
func (l *links) of(path string) *inode {
	if l == nil || len(l.names) == 0 {
		return nil
	}

	if i := l.names[pathKey(path)]; i != nil && i.names > 1 {
		return i
	}

	return nil
}

func (l *links) add(folder string, device uint64, n linkedName) {
	if len(l.names) >= maxLinks {
		l.more = true

		return
	}

	id := [2]uint64{device, n.Inode}

	i := l.inodes[id]
	if i == nil {
		i = &inode{}
		l.inodes[id] = i
	}

	i.names++
	l.names[pathKey(join(folder, string(n.Name)))] = i
}

// loadLinks reads the list of hard links of a snapshot. Where it can't be read and that is to stop nobody, the names become
// files of their own.
func (w *restorer) loadLinks(ctx context.Context, m *snapshot.Manifest) error {
	entry, err := linkEntry(m)
	if err == nil && entry != nil {
		w.links, err = w.readLinks(ctx, entry.ObjectID)
	}

	if err == nil {
		return nil
	}

	return w.judge(ctx, "hard links", err)
}

func (w *restorer) readLinks(ctx context.Context, id object.ID) (*links, error) {
	r, err := w.rep.OpenObject(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open the list of hard links: %w", err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	l := &links{inodes: map[[2]uint64]*inode{}, names: map[[16]byte]*inode{}}

	err = readLinks(r, func(folder string, device uint64, n linkedName) error {
		l.add(folder, device, n)

		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}

	l.inodes = nil
	if l.more {
		w.omitted.add(engine.OmittedHardLink, fmt.Sprintf("all beyond %d names", maxLinks))
	}

	return l, nil
}

// linked restores a name of a file that has several: the first to come writes the file, the others wait for it.
// What the snapshot has not the same under both names was not one file when it was read.
func (w *restorer) linked(ctx context.Context, i *inode, d *beneath.Dir, e *snapshot.DirEntry, raw string, in *place) error {
	i.mu.Lock()
	defer i.mu.Unlock()

	path := join(in.path, raw)

	i.done++
	if i.first != nil {
		done, err := w.link(i.first, d, e, raw)
		if i.done >= i.names {
			i.first = nil
		}

		if done || err != nil {
			return w.targetError(path, err)
		}

		w.omitted.add(engine.OmittedHardLink, path)
	}

	written, err := w.newFile(ctx, d, e, raw, path)
	if err == nil && i.done < i.names {
		i.first = &firstName{in: in.way, name: raw, device: written.Dev, number: written.Ino, like: likenessOf(e)}
	}

	return err
}

// link makes a name one more of a file that was written, and reports whether it could be done. An error is of what keeps a file of
// its own from being written there, too.
func (w *restorer) link(first *firstName, d *beneath.Dir, e *snapshot.DirEntry, raw string) (bool, error) {
	if first.like != likenessOf(e) {
		return false, nil
	}

	in, err := w.root.OpenPath(first.in.path())
	if err != nil {
		return false, nil //nolint:nilerr // Somebody has taken it away: the file is written once more.
	}
	defer func() { _ = in.Close() }() // O_PATH: nothing to lose.

	err = d.Link(raw, in, first.name, beneath.Entry{Kind: beneath.KindRegular, Dev: first.device, Ino: first.number})

	switch {
	case err == nil:
		w.count.files.Add(1)
		w.count.bytes.Add(e.FileSize)

		return true, nil
	case cannotLink(err):
		return false, nil
	}

	return false, err
}

// cannotLink reports whether an error says that the file, or its file system, takes no further name, or that another file
// has its name now.
func cannotLink(err error) bool {
	for _, e := range []error{unix.EMLINK, unix.EPERM, unix.EXDEV, unix.EOPNOTSUPP, unix.ENOSYS, beneath.ErrChanged, beneath.ErrVanished} {
		if errors.Is(err, e) {
			return true
		}
	}

	return false
}

// makeRoom removes the old names of files with several, of an earlier run or where the volume can't hold the old files and the new
// ones beside each other: replaced name by name, an old file keeps its room until the last name is. So a restore that was
// broken off can begin anew in a volume of the same size.
func (w *restorer) makeRoom(ctx context.Context, r engine.RestoreRequest) error {
	space, err := w.root.Statfs()
	if enough := err != nil || w.need <= space.AvailableBytes; w.links == nil || enough && !r.Resumed {
		return nil //nolint:nilerr // Then writing will tell.
	}

	return w.removeLinked(ctx, w.root.Dir(), "")
}

func (w *restorer) removeLinked(ctx context.Context, d *beneath.Dir, path string) error {
	err := eachListed(d, func(e beneath.Entry) error {
		if e.Kind == beneath.KindRegular && !e.MountPoint && w.links.of(join(path, e.Name)) != nil {
			_ = d.RemoveAll(e.Name) // What stays is in the way of what is to be written there, which says so.
		}

		if e.Kind != beneath.KindDirectory || e.MountPoint {
			return ctx.Err()
		}

		child, err := d.OpenDir(e)
		if err != nil {
			return ctx.Err() // As above.
		}
		defer func() { _ = child.Close() }() // O_PATH: nothing to lose.

		return w.removeLinked(ctx, child, join(path, e.Name))
	})

	return errors.Join(ctx.Err(), w.targetError(path, err))
}
