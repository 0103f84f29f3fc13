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

	res, err := within(ctx, e.cfg.CancelGrace, func(hard context.Context) (engine.BackupResult, error) {
		b := &backup{engine: e, request: r, tell: p, soft: ctx}

		return b.run(hard)
	})
	if err != nil {
		return engine.BackupResult{}, e.explain(ctx, engine.CodeInternal, err)
	}

	return res, nil
}

// backup is one backup under way.
type backup struct {
	engine  *Engine
	request engine.BackupRequest
	tell    engine.ProgressFunc
	// soft is done when the backup is to stop; the context that the methods are
	// given is done when the time for writing down what there is has passed too.
	soft context.Context //nolint:containedctx // two contexts, with different ends

	root   *beneath.Root
	stamps stamps
	count  counter
	stored atomic.Int64
	read   int64
	// allocated is what the volume's files took up, in bytes, once all of them were seen.
	allocated int64

	packs   *packs
	written *indexes
	// lost are the packs that the store did not have when the backup began; dropped
	// is how many of them counted as stored until then.
	lost    lostPacks
	dropped int
}

func (b *backup) run(ctx context.Context) (engine.BackupResult, error) {
	root, err := beneath.Open(b.request.Root, beneath.Options{})
	if err != nil {
		return engine.BackupResult{}, engine.Errorf(engine.CodeSourceUnreadable, "open the volume: %w", err)
	}
	defer func() { _ = root.Close() }() // Open for reading.

	b.root, b.stamps = root, stampsOf(b.request)

	var res engine.BackupResult

	b.written = &indexes{Storage: b.engine.storage(), sizes: map[blob.ID]int64{}}

	err = b.engine.openedOn(ctx, b.written, writing, func(ctx context.Context, rep *repository.Repository) error {
		if err := b.prepare(ctx, rep); err != nil {
			return fmt.Errorf("look for lost packs: %w", err)
		}

		if res, err = b.upload(ctx, rep); err != nil {
			return err
		}

		return readBack(ctx, rep, manifest.ID(res.SnapshotID))
	})
	if err != nil {
		return engine.BackupResult{}, err
	}

	done(res.Summary, b.tell)

	return res, nil
}

// upload uploads the volume and saves the snapshot in a session of its own.
func (b *backup) upload(ctx context.Context, rep repo.DirectRepository) (engine.BackupResult, error) {
	var ps []*snapshot.Manifest
	if b.stamps.telling {
		ps = b.parents(ctx, rep)
	}

	if err := errors.Join(b.soft.Err(), repository.StorageErr(b.engine.storage())); err != nil {
		return engine.BackupResult{}, fmt.Errorf("look for earlier snapshots: %w", err)
	}

	opts := repo.WriteSessionOptions{Purpose: "backup", OnUpload: func(n int64) { b.stored.Add(n) }}

	ctx, w, err := rep.NewWriter(ctx, opts)
	if err != nil {
		return engine.BackupResult{}, fmt.Errorf("begin to write: %w", err)
	}

	res, err := b.write(ctx, rep, w, ps)

	return res, errors.Join(err, w.Close(context.WithoutCancel(ctx)))
}

func (b *backup) write(ctx context.Context, rep repo.DirectRepository, w repo.RepositoryWriter, ps []*snapshot.Manifest) (engine.BackupResult, error) {
	m, src, err := b.passes(ctx, w, ps)
	if err != nil {
		return engine.BackupResult{}, errors.Join(err, b.keep(ctx, w, m))
	}

	b.allocated = src.allocated.Load()

	if err := b.flush(ctx, w); err != nil {
		return engine.BackupResult{}, err
	}

	// Before there is a manifest: who dies from here on leaves none that names what
	// nobody has looked for. A restore, or the next backup, would take it for whole.
	if err := b.confirm(ctx, rep, m); err != nil {
		return engine.BackupResult{}, fmt.Errorf("look for what was written: %w", err)
	}

	omitted := src.omitted.list()

	if err := b.save(ctx, w, m, omitted); err != nil {
		return engine.BackupResult{}, err
	}

	if err := b.confirm(ctx, rep, m); err != nil {
		return engine.BackupResult{}, fmt.Errorf("look for the snapshot that was written: %w", err)
	}

	res := engine.BackupResult{SnapshotID: string(m.ID), Incremental: len(ps) > 0, LostPacks: b.dropped, Summary: summaryOf(m)}
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
func (b *backup) confirm(ctx context.Context, rep repo.DirectRepository, m *snapshot.Manifest) error {
	if err := b.verify(ctx, rep, m); err != nil {
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
	m.Description = b.request.Description
	m.Tags = kopiaTags(b.request)
	m.Pins = []string{pin}

	if complete(m) {
		signRoom(m, b.allocated)

		if err := sign(m, omitted); err != nil {
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
