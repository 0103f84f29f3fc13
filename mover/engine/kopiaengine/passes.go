package kopiaengine

import (
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/policy"
	"github.com/kopia/kopia/snapshot/upload"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// Compressor is the algorithm for the content of files and for folders.
const Compressor = "zstd-fastest"

// parallelAbove is the size in bytes from which a file is read, hashed and
// compressed in several pieces at a time. It is a multiple of the pieces of
// repository.Splitter, so that the pieces are the same either way.
const parallelAbove = 256 << 20

// uploadPolicy is all the policy there is: what lies in the repository is not asked.
// Errors of entries are "ignored" in kopia's eyes because the source judges them.
func uploadPolicy() *policy.Tree {
	above := policy.OptionalInt64(parallelAbove)

	return policy.BuildTree(nil, &policy.Policy{
		CompressionPolicy:         policy.CompressionPolicy{CompressorName: Compressor},
		MetadataCompressionPolicy: policy.MetadataCompressionPolicy{CompressorName: Compressor},
		ErrorHandlingPolicy: policy.ErrorHandlingPolicy{
			IgnoreFileErrors:      policy.NewOptionalBool(true),
			IgnoreDirectoryErrors: policy.NewOptionalBool(true),
			IgnoreUnknownTypes:    policy.NewOptionalBool(false),
		},
		SplitterPolicy: policy.SplitterPolicy{Algorithm: repository.Splitter},
		UploadPolicy:   policy.UploadPolicy{ParallelUploadAboveSize: &above},
	})
}

// passes goes over the volume once, and again for what changed while it was read. Where
// it was gone over before, again are the raw paths that have to be read whatever the earlier
// snapshots have. With an error, the manifest is what there is so far, or nil.
func (b *backup) passes(ctx context.Context, w repo.RepositoryWriter, ps []*snapshot.Manifest, again map[string]struct{}) (*snapshot.Manifest, *source, error) {
	if again == nil {
		defer b.startEstimate(ctx, ps)()
	}

	for pass := 0; ; pass++ {
		m, src, err := b.pass(ctx, w, ps, again)
		if err != nil {
			return m, src, err
		}

		again = src.changedPaths()
		if len(again) == 0 {
			return m, src, nil
		}

		if pass == rereads {
			return m, src, src.settle()
		}

		// This pass's snapshot spares the next one everything but what changed. It
		// was not saved, so that it never counts as one.
		ps = append([]*snapshot.Manifest{m}, ps...)
	}
}

// startEstimate finds the totals: those of the last snapshot, or of a walk.
func (b *backup) startEstimate(ctx context.Context, ps []*snapshot.Manifest) (stop func()) {
	for _, p := range ps {
		if s := p.RootEntry.DirSummary; complete(p) && s != nil {
			b.count.totalBytes.Store(s.TotalFileSize)
			b.count.totalFiles.Store(s.TotalFileCount + s.TotalSymlinkCount)

			return func() {}
		}
	}

	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})

	go func() {
		defer close(done)

		estimate(ctx, b.root, &b.count)
	}()

	return func() {
		cancel()
		<-done
	}
}

// pass goes over the volume once.
func (b *backup) pass(ctx context.Context, w repo.RepositoryWriter, ps []*snapshot.Manifest, again map[string]struct{}) (*snapshot.Manifest, *source, error) {
	guard := newUploadWriter(w, b.request.FlushAfter)
	u := upload.NewUploader(guard)
	links := newLinkWriter(ctx, w)
	src := newSource(again, b.stamps.windows(ps), links, u.Cancel)

	defer links.close()

	root, err := newRoot(src, b.root)
	if err != nil {
		return nil, src, err
	}

	count := &b.count
	if again != nil {
		count = &counter{} // What is done twice is not done more.
	}

	progress := &uploadProgress{count: count, cancel: u.Cancel}

	u.Progress = progress
	u.DisableIgnoreRules = true
	u.FailFast = false
	u.EnableActions = false
	u.ParallelUploads = b.request.Parallel
	u.CheckpointInterval = b.engine.cfg.CheckpointInterval
	u.CheckpointLabels = kopiaTags(b.request)

	defer context.AfterFunc(b.soft, u.Cancel)()

	endReport := count.report(b.engine.cfg.ProgressInterval, b.tellOnce(again), func() {
		if repository.StorageErr(b.engine.storage()) != nil {
			u.Cancel()
		}
	})

	m, err := u.Upload(ctx, root, uploadPolicy(), sourceOf(b.request), ps...)

	endReport()
	guard.shut()

	b.read += src.readBytes.Load()

	return m, src, b.judge(m, src, errors.Join(progress.err(), guard.err(), err, links.sign(m)))
}

// tellOnce returns the progress function for the first pass only.
func (b *backup) tellOnce(again map[string]struct{}) engine.ProgressFunc {
	if again != nil {
		return nil
	}

	return b.tell
}

// judge reports whether a pass is good, and if not, whose fault it is: the store's
// first, since its failures look like anything else's.
func (b *backup) judge(m *snapshot.Manifest, src *source, err error) error {
	if sticky := repository.StorageErr(b.engine.storage()); sticky != nil {
		return fmt.Errorf("upload the volume: %w", errors.Join(sticky, err))
	}

	if soft := b.soft.Err(); soft != nil {
		return engine.Errorf(engine.CodeCanceled, "upload the volume: %w", context.Cause(b.soft))
	}

	if unread := src.err(); unread != nil {
		return unread
	}

	if err != nil {
		return fmt.Errorf("upload the volume: %w", err)
	}

	if m.IncompleteReason != "" {
		return engine.Errorf(engine.CodeInternal, "upload the volume: it ended early: %s", m.IncompleteReason)
	}

	return nil
}
