package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// Restore implements engine.Engine. What is in the volume under the names of the
// snapshot is replaced, file by file and never in place.
func (e *Engine) Restore(ctx context.Context, r engine.RestoreRequest, p engine.ProgressFunc) (engine.RestoreResult, error) {
	if err := r.Validate(); err != nil {
		return engine.RestoreResult{}, err
	}

	res, err := within(ctx, 0, func(ctx context.Context) (engine.RestoreResult, error) {
		return e.restore(ctx, r, p)
	})

	return res, e.explain(ctx, engine.CodeRepositoryDamaged, err)
}

func (e *Engine) restore(ctx context.Context, r engine.RestoreRequest, p engine.ProgressFunc) (res engine.RestoreResult, err error) {
	root, err := beneath.Open(r.Root, beneath.Options{})
	if err != nil {
		return res, engine.Errorf(engine.CodeTargetUnwritable, "open the volume: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()

	// What is kept needs no snapshot, nor a repository.
	if res.Kept, err = kept(root, r); err != nil || len(res.Kept) > 0 {
		return res, err
	}

	err = e.opened(ctx, readingAll, func(ctx context.Context, rep *repository.Repository) error {
		m, err := choose(ctx, rep, r, &res)
		if err != nil {
			return err
		}

		if err := r.Continues(res.SnapshotID); err != nil {
			return err
		}

		w := newRestorer(rep, root, r)
		w.storage = e.storage()

		if err := w.vacant(r); err != nil || m == nil {
			return err
		}

		if err := w.prepare(ctx, m, r); err != nil {
			return err
		}

		end := w.count.report(e.cfg.ProgressInterval, p, func() {})
		if err = w.makeRoom(ctx, r); err == nil {
			err = w.run(ctx, m)
		}

		end()

		res.Summary, res.LeftOut = w.summary(), w.leftOut.Load()
		res.Summary.Omissions = engine.MergeOmissions(lacks(m), w.omitted.list())

		return err
	})
	if err != nil {
		return engine.RestoreResult{}, err
	}

	if res.SnapshotID == "" {
		return res, nil
	}

	if err := root.Sync(); err != nil {
		return engine.RestoreResult{}, engine.Errorf(engine.CodeTargetUnwritable, "sync the volume: %w", err)
	}

	done(res.Summary, p)

	return res, nil
}

// prepare reads which files are one, looks whether there is room, and asks to be let to write.
func (w *restorer) prepare(ctx context.Context, m *snapshot.Manifest, r engine.RestoreRequest) error {
	w.need = roomOf(m)

	if s := m.RootEntry.DirSummary; s != nil {
		w.count.totalBytes.Store(s.TotalFileSize)
		w.count.totalFiles.Store(s.TotalFileCount + s.TotalSymlinkCount)
	}

	if err := errors.Join(w.loadLinks(ctx, m), w.preflight(ctx, r)); err != nil || r.BeforeWrite == nil {
		return err
	}

	return r.BeforeWrite(ctx, string(m.ID))
}

// snapshotOfJob finds the finished snapshot of a job that is as expected: the newest,
// where a job was done more than once. The error wraps errMissing where there is none at all.
func snapshotOfJob(ctx context.Context, rep repo.Repository, r engine.RestoreRequest) (*snapshot.Manifest, error) {
	ms, err := find(ctx, rep, jobLabels(r.Job, nil))
	if err != nil {
		return nil, err
	}

	var unlike error

	for _, m := range newest(ms) {
		if !complete(m) {
			continue
		}

		d := listing(m).Unlike(r.Expect)
		if d == "" {
			return m, nil
		}

		if unlike == nil {
			unlike = engine.Errorf(engine.CodeSnapshotNotFound, "snapshot %s of job %s is not the one expected: %s", m.ID, r.Job, d)
		}
	}

	if unlike != nil {
		return nil, unlike
	}

	// There may be an unfinished one whose finished successor can't be read.
	if err := unlisted(rep); err != nil {
		return nil, err
	}

	return nil, engine.Errorf(engine.CodeSnapshotNotFound, "%w of job %s", errMissing, r.Job)
}

// restorer writes one snapshot into a volume.
type restorer struct {
	rep  repo.Repository
	root *beneath.Root
	// slots has a place for each goroutine beside the first.
	slots   chan struct{}
	buffers sync.Pool
	// need is the room that the snapshot is known to need, in bytes; block is what is left out at
	// a time where there are zeros.
	need, block int64
	// mirror removes what the snapshot does not have.
	mirror bool
	// skip leaves out what can't be restored; leftOut counts it.
	skip    bool
	leftOut atomic.Int64
	storage blob.Storage
	links   *links
	// linkAttributes takes what is not set here; see engine.RestoreRequest.
	linkAttributes func(engine.LinkAttributes) error

	count counter
	dirs  counter // files counts the folders, totalFiles the links
	// omitted is what the snapshot has and could not be put back.
	omitted omissions

	mu    sync.Mutex
	first error
	stop  context.CancelFunc
}

// maxParallel bounds the pieces of packs and files in memory.
const maxParallel = 16

func newRestorer(rep repo.Repository, root *beneath.Root, r engine.RestoreRequest) *restorer {
	parallel := r.Parallel
	if parallel <= 0 {
		// Writing waits as much as it computes.
		parallel = min(2*runtime.GOMAXPROCS(0), maxParallel)
	}

	var space beneath.Space
	if s, err := root.Statfs(); err == nil {
		space = s
	}

	return &restorer{
		rep:    rep,
		root:   root,
		block:  blockOf(space.BlockSize),
		mirror: r.Existing == engine.ExistingMirror,
		skip:   r.OnFileError == engine.FileErrorSkip,

		linkAttributes: r.LinkAttributes,

		slots: make(chan struct{}, parallel-1),
		buffers: sync.Pool{New: func() any {
			b := make([]byte, copyBuffer)

			return &b
		}},
	}
}

func (w *restorer) summary() engine.Summary {
	return engine.Summary{
		Files:       w.count.files.Load() - w.dirs.totalFiles.Load(),
		Directories: w.dirs.files.Load(),
		Symlinks:    w.dirs.totalFiles.Load(),
		Bytes:       w.count.bytes.Load(),
	}
}

func (w *restorer) run(ctx context.Context, m *snapshot.Manifest) error {
	ctx, w.stop = context.WithCancel(ctx)
	defer w.stop()

	w.fail(w.folder(ctx, w.root.Dir(), m.RootEntry, "", nil))

	w.mu.Lock()
	defer w.mu.Unlock()

	if w.first == nil {
		return w.nothing()
	}

	return w.first
}

// fail keeps the first failure, and stops everything.
func (w *restorer) fail(err error) {
	if err == nil {
		return
	}

	w.mu.Lock()
	defer w.mu.Unlock()

	if w.first == nil {
		w.first = err
	}

	w.stop()
}

// spread does work in another goroutine if there is a place for one, or else here
// and now: so there are never more of them, nor more in memory, than allowed.
func (w *restorer) spread(wg *sync.WaitGroup, work func() error) {
	select {
	case w.slots <- struct{}{}:
		wg.Go(func() {
			defer func() { <-w.slots }()

			w.fail(work())
		})
	default:
		w.fail(work())
	}
}

// targetError sets the code of a failure to write, and adds the numbers of a full volume.
func (w *restorer) targetError(path string, err error) error {
	if err == nil {
		return nil
	}

	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return engine.Errorf(engine.CodeTargetFull, "restore %s: the snapshot %s, %s: %w", quote(path), w.needs(), w.free(), err)
	}

	return engine.Errorf(engine.CodeTargetUnwritable, "restore %s: %w", quote(path), err)
}

func (w *restorer) free() string {
	s, err := w.root.Statfs()
	if err != nil {
		return "free space is unknown"
	}

	return fmt.Sprintf("%d bytes and %d inodes are free", s.AvailableBytes, s.FreeInodes)
}

// preflight refuses what can't fit, before anything is written. It gives the
// benefit of the doubt: what is in the volume now may be about to be replaced,
// file systems that compress hold more than they have, and what the files of a snapshot
// took up where they were is not known of all snapshots.
func (w *restorer) preflight(ctx context.Context, r engine.RestoreRequest) error {
	space, err := w.root.Statfs()
	if err != nil || w.need <= space.AvailableBytes || !countsPlainly(int(r.Root.Fd())) {
		return nil //nolint:nilerr // Then writing will tell.
	}

	var held int64

	err = measure(ctx, w.root.Dir(), func(e beneath.Entry) {
		if e.Kind == beneath.KindRegular {
			const block = 512
			held += block * e.Blocks
		}
	})
	if err != nil || w.need <= space.AvailableBytes+held {
		return nil //nolint:nilerr // Then writing will tell.
	}

	return engine.Errorf(engine.CodeTargetFull, "restore volume: the snapshot %s, %d are free", w.needs(), space.AvailableBytes)
}

// needs says what room the snapshot needs, or, where that is not known, how big its files are.
func (w *restorer) needs() string {
	if w.need > 0 {
		return fmt.Sprintf("needs %d bytes", w.need)
	}

	return fmt.Sprintf("has files of %d bytes, holes included", w.count.totalBytes.Load())
}

// countsPlainly reports whether a byte of a file takes a byte of the file system.
func countsPlainly(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}

	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}

	return false
}
