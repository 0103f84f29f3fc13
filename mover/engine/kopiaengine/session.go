package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// leaveBehind is how long a call that was cancelled waits for its work to stop
// before it returns without it. What reads from a dead disk or mount stops only
// when its process does.
const leaveBehind = 2 * time.Second

// within runs work so that this call returns soon after ctx is done, whether or not
// the work heeds it: after the grace, the context that the work is given is done too.
func within[T any](ctx context.Context, grace time.Duration, work func(context.Context) (T, error)) (T, error) {
	hard, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)

	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
		context.AfterFunc(hard, func() { t.Stop() })
	})()

	type outcome struct {
		value T
		err   error
	}

	done := make(chan outcome, 1)

	go func() {
		v, err := work(hard)
		done <- outcome{v, err}
	}()

	select {
	case o := <-done:
		return o.value, o.err
	case <-hard.Done():
	}

	t := time.NewTimer(leaveBehind)
	defer t.Stop()

	select {
	case o := <-done:
		return o.value, o.err
	case <-t.C:
		var none T

		return none, engine.Errorf(engine.CodeCanceled, "the work did not stop in time: %w", context.Cause(ctx))
	}
}

// access is what a repository is opened for.
type access int

const (
	// reading is for manifests.
	reading access = iota
	// readingAll is for most of what a snapshot holds.
	readingAll
	writing
)

// withRepository opens the repository for one piece of work that can be broken off
// anywhere.
func (e *Engine) withRepository(ctx context.Context, a access, work func(context.Context, repo.Repository) error) error {
	_, err := within(ctx, 0, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, e.opened(ctx, a, func(ctx context.Context, rep *repository.Repository) error { return work(ctx, rep) })
	})

	return e.explain(ctx, engine.CodeInternal, err)
}

func (e *Engine) opened(ctx context.Context, a access, work func(context.Context, *repository.Repository) error) error {
	return openedOn(ctx, e.cfg.Repository, a, func(ctx context.Context, rep *repository.Repository) error {
		if err := rep.ReadManifests(ctx); err != nil {
			return fmt.Errorf("read the manifests: %w", err)
		}

		return work(ctx, rep)
	})
}

// openedOn opens the repository by these settings.
func openedOn(ctx context.Context, s repository.Settings, a access, work func(context.Context, *repository.Repository) error) error {
	s.ReadOnly = s.ReadOnly || a != writing
	s.ReadAhead = a == readingAll

	rep, err := repository.Open(ctx, s)
	if err != nil {
		return err
	}

	err = work(ctx, rep)

	return errors.Join(err, rep.Close(context.WithoutCancel(ctx)))
}

// errUploadOver is what a checkpoint gets that comes after the end of its upload.
var errUploadOver = errors.New("the upload is over")

// uploadWriter is what the uploader writes to. It deletes nothing: kopia applies a
// retention policy at every checkpoint, and would remove snapshots that Velero
// still knows. And it can be shut: kopia does not wait for a checkpoint that it has
// begun.
type uploadWriter struct {
	repo.RepositoryWriter

	mu   sync.RWMutex
	over bool
	// objects is how many were written, and flushAfter after how many all of them are written to the store.
	objects    atomic.Int64
	flushAfter int64

	failed atomic.Pointer[error]
}

// defaultFlushAfter is for workers whose memory has no bound.
const defaultFlushAfter = 256 << 10

func newUploadWriter(w repo.RepositoryWriter, flushAfter int) *uploadWriter {
	if flushAfter <= 0 {
		flushAfter = defaultFlushAfter
	}

	return &uploadWriter{RepositoryWriter: w, flushAfter: int64(flushAfter)}
}

// err returns the first failure of a checkpoint: kopia ends the upload for it without
// saying why.
func (w *uploadWriter) err() error {
	if e := w.failed.Load(); e != nil {
		return *e
	}

	return nil
}

func (w *uploadWriter) note(err error) error {
	if err != nil {
		w.failed.CompareAndSwap(nil, &err)
	}

	return err
}

// FindManifests finds none. Kopia looks for snapshots to apply its retention to, also
// when the upload is over already; and it crashes in the middle of that if the index
// that it reads is found missing meanwhile, since it closes it.
func (w *uploadWriter) FindManifests(context.Context, map[string]string) ([]*manifest.EntryMetadata, error) {
	return nil, nil
}

// DeleteManifest does nothing, and says that it has worked.
func (w *uploadWriter) DeleteManifest(context.Context, manifest.ID) error { return nil }

// PutManifest saves a checkpoint.
func (w *uploadWriter) PutManifest(ctx context.Context, labels map[string]string, payload any) (manifest.ID, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()

	if w.over {
		return "", errUploadOver
	}

	id, err := w.RepositoryWriter.PutManifest(ctx, labels, payload)

	return id, w.note(err)
}

// Flush writes a checkpoint to the store.
func (w *uploadWriter) Flush(ctx context.Context) error {
	w.mu.RLock()
	defer w.mu.RUnlock()

	if w.over {
		return errUploadOver
	}

	return w.note(w.RepositoryWriter.Flush(ctx))
}

// wrote counts an object, and now and then has all that was written so far written to the store. Kopia keeps an entry of
// the index for each new content until then, several times over while it writes: for small files more than all else
// takes, and at the very time when a worker that is short of memory is to write down what it has.
func (w *uploadWriter) wrote(ctx context.Context) error {
	if w.objects.Add(1)%w.flushAfter != 0 {
		return nil
	}

	return w.Flush(ctx)
}

// shut waits for what is under way and lets nothing else begin.
func (w *uploadWriter) shut() {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.over = true
}
