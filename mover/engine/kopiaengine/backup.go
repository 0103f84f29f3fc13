package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// rereads is how often files that changed while they were read are read again.
const rereads = 2

// Backup implements engine.Engine.
func (e *Engine) Backup(ctx context.Context, r engine.BackupRequest, p engine.ProgressFunc) (engine.BackupResult, error) {
	if r.Root == nil || r.Host == "" || r.Path == "" || r.Instance == "" || r.Job == "" {
		return engine.BackupResult{}, engine.Errorf(engine.CodeInvalidRequest, "back up volume: root, host, path, instance and job are needed")
	}

	soft, stop := windingUp(ctx, r.WindUp)
	defer stop()

	res, err := within(ctx, e.cfg.CancelGrace, func(hard context.Context) (engine.BackupResult, error) {
		b := &backup{engine: e, request: r, tell: p, soft: soft}

		return b.run(hard)
	})
	if err != nil {
		return engine.BackupResult{}, e.explain(ctx, engine.CodeInternal, err)
	}

	return res, nil
}

// errWindUp is why a backup ends early that is to wind up.
var errWindUp = errors.New("it was told to write down what it has, and to end")

// windingUp returns a context that is also done when the backup is to wind up.
func windingUp(ctx context.Context, windUp <-chan struct{}) (soft context.Context, stop func()) {
	soft, cancel := context.WithCancelCause(ctx)

	go func() {
		select {
		case <-windUp:
			cancel(errWindUp)
		case <-soft.Done():
		}
	}()

	return soft, func() { cancel(nil) }
}

// backup is one backup under way.
type backup struct {
	engine  *Engine
	request engine.BackupRequest
	tell    engine.ProgressFunc
	// soft is done when the backup is to stop; the context that the methods are
	// given is done when the time for writing down what there is has passed too. One that is
	// to wind up has all the time it needs.
	soft context.Context //nolint:containedctx // two contexts, with different ends

	root   *beneath.Root
	stamps stamps
	count  counter
	stored atomic.Int64
	read   int64
	// allocated is what the volume's files took up, in bytes, once all of them were seen.
	allocated int64

	rep      *repository.Repository
	calendar calendar
	packs    *packs
	written  *written
	// lost are the packs that the store did not have when the backup began.
	lost   lostPacks
	damage damage

	// parent is the finished snapshot that is taken over from, if there is one.
	parent *snapshot.Manifest
	// looked are the indexes in use when the new snapshot was last looked through.
	looked map[blob.ID]int64
	rota   rota
	// shareRead says that the share of this backup was read back and is sound; closer that
	// damage was found in it.
	shareRead, closer bool
	// recovered says that the index was looked for at the ends of packs.
	recovered bool
	// unrescued is how many lost contents this machine had not cached either.
	unrescued int
}

func (b *backup) run(ctx context.Context) (engine.BackupResult, error) {
	root, err := beneath.Open(b.request.Root, beneath.Options{})
	if err != nil {
		return engine.BackupResult{}, engine.Errorf(engine.CodeSourceUnreadable, "open the volume: %w", err)
	}
	defer func() { _ = root.Close() }() // Open for reading.

	b.root, b.stamps = root, stampsOf(b.request)

	var res engine.BackupResult

	b.written = newWritten(b.engine.storage())
	b.calendar.now = b.engine.cfg.Repository.Now

	s := b.engine.cfg.Repository
	s.Storage, s.Now = b.written, b.calendar.Now

	err = openedOn(ctx, s, writing, func(ctx context.Context, rep *repository.Repository) error {
		b.rep = rep

		if err := b.prepare(ctx); err != nil {
			return fmt.Errorf("look for lost packs: %w", err)
		}

		if res, err = b.upload(ctx); err != nil {
			return err
		}

		if err := readBack(ctx, rep, manifest.ID(res.SnapshotID)); err != nil {
			return err
		}

		b.tellDamage(ctx)

		return rep.MoveAside(ctx)
	})
	if err != nil {
		return engine.BackupResult{}, err
	}

	done(res.Summary, b.tell)

	return res, nil
}

// upload uploads the volume and saves the snapshot in a session of its own.
func (b *backup) upload(ctx context.Context) (engine.BackupResult, error) {
	ps := b.parents(ctx)
	if err := errors.Join(b.soft.Err(), repository.StorageErr(b.engine.storage())); err != nil {
		return engine.BackupResult{}, fmt.Errorf("look for earlier snapshots: %w", err)
	}

	opts := repo.WriteSessionOptions{Purpose: "backup", OnUpload: func(n int64) { b.stored.Add(n) }}

	ctx, w, err := b.rep.NewWriter(ctx, opts)
	if err != nil {
		return engine.BackupResult{}, fmt.Errorf("begin to write: %w", err)
	}

	res, err := b.write(ctx, w, ps)

	return res, errors.Join(err, w.Close(context.WithoutCancel(ctx)))
}

func (b *backup) write(ctx context.Context, w repo.RepositoryWriter, ps []*snapshot.Manifest) (engine.BackupResult, error) {
	m, src, err := b.passes(ctx, w, ps, nil)
	if err != nil {
		return engine.BackupResult{}, errors.Join(err, b.keep(ctx, w, m))
	}

	b.allocated = src.allocated.Load()
	b.noteRoom(src)

	if err := b.flush(ctx, w); err != nil {
		return engine.BackupResult{}, err
	}

	// Before there is a manifest: who dies from here on leaves none that names what
	// nobody has looked for. A restore, or the next backup, would take it for whole.
	if err := b.confirm(ctx, m); err != nil {
		return engine.BackupResult{}, fmt.Errorf("look for what was written: %w", err)
	}

	if m, src, err = b.heal(ctx, w, m, src); err != nil {
		return engine.BackupResult{}, errors.Join(err, b.keep(ctx, w, m))
	}

	omitted := src.omitted.list()

	if err := b.save(ctx, w, m, omitted); err != nil {
		return engine.BackupResult{}, err
	}

	if err := b.confirm(ctx, m); err != nil {
		return engine.BackupResult{}, fmt.Errorf("look for the snapshot that was written: %w", err)
	}

	res := engine.BackupResult{SnapshotID: string(m.ID), Incremental: len(ps) > 0, LostPacks: b.damage.blobs(), Summary: summaryOf(m)}
	res.Summary.ReadBytes = b.read
	res.Summary.StoredBytes = b.stored.Load()
	res.Summary.Omissions = omitted

	return res, nil
}

func summaryOf(m *snapshot.Manifest) engine.Summary {
	s := m.RootEntry.DirSummary
	if s == nil {
		return engine.Summary{}
	}

	return engine.Summary{
		Files:       s.TotalFileCount,
		Directories: s.TotalDirCount,
		Symlinks:    s.TotalSymlinkCount,
		Bytes:       s.TotalFileSize,
	}
}

// save writes the snapshot down, and removes the checkpoints that it makes useless.
func (b *backup) save(ctx context.Context, w repo.RepositoryWriter, m *snapshot.Manifest, omitted []engine.Omission) error {
	if err := b.put(ctx, w, m, omitted); err != nil {
		return err
	}

	if err := b.dropCheckpoints(ctx, w, m); err != nil {
		return err
	}

	return b.flush(ctx, w)
}

// flush has all that was written so far written to the store.
func (b *backup) flush(ctx context.Context, w repo.RepositoryWriter) error {
	if err := w.Flush(ctx); err != nil {
		return fmt.Errorf("write to the store: %w", err)
	}

	return repository.StorageErr(b.engine.storage())
}

// confirm looks for all of it in the store. The packs come first: a storage that
// has found out that it lost something may refuse to do anything more, and then the
// snapshot could not be removed.
func (b *backup) confirm(ctx context.Context, m *snapshot.Manifest) error {
	if err := b.verify(ctx, m); err != nil {
		return err
	}

	if v, ok := b.engine.storage().(Verifier); ok {
		if err := v.VerifyWritten(ctx); err != nil {
			return err
		}
	}

	return repository.StorageErr(b.engine.storage())
}

func (b *backup) put(ctx context.Context, w repo.RepositoryWriter, m *snapshot.Manifest, omitted []engine.Omission) error {
	links := m.Tags[linksTag]

	m.Description = b.request.Description
	m.Tags = kopiaTags(b.request)
	m.Tags[tagPrefix+contract.TagReadBack] = b.rota.String()
	m.Pins = []string{pin}

	if complete(m) {
		signRoom(m, b.allocated)

		if err := sign(m, omitted); err != nil {
			return err
		}

		if err := b.putLinks(ctx, w, m, links); err != nil {
			return err
		}
	}

	if _, err := snapshot.SaveSnapshot(ctx, w, m); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}

	return nil
}

// keep writes down what a backup that failed has got, for the next one to build on.
// Where the store is what failed, there is no use in it. An upload that was
// cancelled has the time until ctx is done.
func (b *backup) keep(ctx context.Context, w repo.RepositoryWriter, m *snapshot.Manifest) error {
	if m == nil || m.RootEntry == nil || repository.StorageErr(b.engine.storage()) != nil {
		return nil //nolint:nilerr // The backup has failed with that already.
	}

	if m.IncompleteReason == "" {
		m.IncompleteReason = "failed"
	}

	if err := b.put(ctx, w, m, nil); err != nil {
		return err
	}

	if err := w.Flush(ctx); err != nil {
		return fmt.Errorf("write checkpoint to the store: %w", err)
	}

	return nil
}

// dropCheckpoints removes the unfinished snapshots of the same volume begun before
// a finished one. What an earlier attempt of the same job finished before it died
// is whole, and stays: a restore takes the newest, and the job's snapshots are forgotten together.
func (b *backup) dropCheckpoints(ctx context.Context, w repo.RepositoryWriter, done *snapshot.Manifest) error {
	ids, err := findIDs(ctx, w, chainLabels(b.request))
	if err != nil {
		return err
	}

	for _, id := range ids {
		m, err := snapshot.LoadSnapshot(ctx, w, id)
		if err != nil || complete(m) || m.StartTime.After(done.StartTime) {
			continue // One that can't be loaded is for maintenance to find.
		}

		if err := w.DeleteManifest(ctx, id); err != nil {
			return fmt.Errorf("remove checkpoint %s: %w", id, err)
		}
	}

	return nil
}

// readBack looks into the store anew, with a repository that has written nothing,
// for the snapshot and its root folder.
func readBack(ctx context.Context, rep repo.Repository, id manifest.ID) error {
	if err := rep.Refresh(ctx); err != nil {
		return fmt.Errorf("read snapshot %s back: %w", id, err)
	}

	m, err := snapshot.LoadSnapshot(ctx, rep, id)
	if err != nil {
		return engine.Errorf(engine.CodeStoreLostWrite, "read snapshot %s back: %w", id, err)
	}

	if err := readRoot(ctx, rep, m); err != nil {
		return engine.Errorf(engine.CodeStoreLostWrite, "read snapshot %s back: %w", id, err)
	}

	return nil
}

// tellDamage says what was found of it, when the snapshot is whole.
func (b *backup) tellDamage(ctx context.Context) {
	if b.damage.blobs() == 0 {
		return
	}

	b.engine.cfg.Log.WarnContext(ctx, "the store has lost or altered blobs of the repository: what they held was uploaded again where the volume has it, and earlier snapshots with it are damaged",
		"packs", b.damage.packs, "indexes", b.rep.DamagedIndexes(), "unknown", b.damage.unknown)
}
