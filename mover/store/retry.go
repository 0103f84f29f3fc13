package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	firstDelay = 200 * time.Millisecond
	maxDelay   = 15 * time.Second
)

// retrying repeats what failed for a passing reason, with growing delays that
// are shortened at random by up to a half, for as long as the budget lasts. What
// fails for good comes back at once, and the end of the context ends everything.
type retrying struct {
	blob.Storage

	budget time.Duration
	clock  clock.Clock
	random func() float64
	place  string
	secret string
}

func newRetrying(st blob.Storage, o Options) *retrying {
	return &retrying{Storage: st, budget: o.RetryFor, clock: o.Clock, random: o.Random, place: o.Place, secret: o.Secret}
}

// do runs attempt until it succeeds, fails for good or the budget is spent.
func (r *retrying) do(ctx context.Context, what string, attempt func() error) error {
	start := r.clock.Now()

	for tries := 1; ; tries++ {
		err := attempt()
		if err == nil || !retryable(err) {
			return r.locate(annotate(what, err))
		}

		if ctx.Err() != nil {
			return canceled(ctx, what)
		}

		delay := r.delay(tries)
		over := engine.CodeOf(err) == engine.CodeClockSkewed && tries >= skewTries // a clock is not set by waiting

		if spent := r.clock.Since(start); over || spent+delay > r.budget {
			return r.locate(engine.Errorf(engine.CodeOf(err), "%s: failed %d times in %s: %w", what, tries, spent.Round(time.Millisecond), err))
		}

		if !r.wait(ctx, delay) {
			return canceled(ctx, what)
		}
	}
}

// locate adds to a failure of the store which one it is, and where the credentials it refuses are from.
func (r *retrying) locate(err error) error {
	var where string

	code := engine.CodeOf(err)

	switch {
	case err == nil || expected(err):
		return err
	case code == engine.CodeCredentialsInvalid && r.secret != "":
		where = strings.TrimPrefix(r.place+", with the credentials of "+r.secret, ", ")
	case code == engine.CodeCredentialsInvalid, code == engine.CodeStoreUnavailable, code == engine.CodeStoreStalled,
		code == engine.CodeStoreLostWrite, code == engine.CodeInvalidRequest, code == engine.CodeStoreFull, code == engine.CodeClockSkewed:
		where = r.place
	}

	if where == "" {
		return err
	}

	return engine.Errorf(code, "%w (%s)", err, where)
}

// delay before the attempt that follows the given number of tries.
func (r *retrying) delay(tries int) time.Duration {
	d := maxDelay
	if shift := tries - 1; shift < 7 { // 200 ms doubled seven times is past the longest delay
		d = min(maxDelay, firstDelay<<shift)
	}

	return d/2 + time.Duration(r.random()*float64(d/2)) // a half is fixed, a half is at random
}

func (r *retrying) wait(ctx context.Context, d time.Duration) bool {
	t := r.clock.NewTimer(d)
	defer t.Stop()

	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// GetBlob reads once more, also, what came shorter than was asked for: it may
// have been cut on its way. A blob that is really short says so twice.
func (r *retrying) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	reread := false

	return r.do(ctx, "get blob "+string(id), func() error {
		err := r.Storage.GetBlob(ctx, id, offset, length, out)
		if errors.Is(err, blob.ErrInvalidRange) && !reread {
			reread = true
			err = r.Storage.GetBlob(ctx, id, offset, length, out)
		}

		return err // do says what was attempted
	})
}

func (r *retrying) GetMetadata(ctx context.Context, id blob.ID) (m blob.Metadata, err error) {
	err = r.do(ctx, "get metadata of blob "+string(id), func() error {
		m, err = r.Storage.GetMetadata(ctx, id)

		return err // do says what was attempted
	})

	return m, err
}

func (r *retrying) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	return r.do(ctx, "put blob "+string(id), func() error {
		return r.Storage.PutBlob(ctx, id, data, o) // do says what was attempted
	})
}

func (r *retrying) DeleteBlob(ctx context.Context, id blob.ID) error {
	return r.do(ctx, "delete blob "+string(id), func() error {
		return r.Storage.DeleteBlob(ctx, id) // do says what was attempted
	})
}

// listPage repeats a page, not the listing: one of thousands of pages would seldom
// come through as a whole.
func (r *retrying) listPage(ctx context.Context, prefix blob.ID, after string) (p page, err error) {
	err = r.do(ctx, "list blobs "+string(prefix)+"*", func() error {
		p, err = listPage(ctx, r.Storage, prefix, after)

		return err // do says what was attempted
	})

	return p, err
}

func (r *retrying) GetCapacity(ctx context.Context) (c blob.Capacity, err error) {
	err = r.do(ctx, "get capacity", func() error {
		c, err = r.Storage.GetCapacity(ctx)

		return err // do says what was attempted
	})

	return c, err
}
