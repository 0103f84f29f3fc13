package store

import (
	"context"
	"sync/atomic"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
)

// Counters count what went to and came from a store, attempts that failed
// included. They may be shared by any number of stores and goroutines.
type Counters struct {
	requests, uploaded, downloaded, failures atomic.Int64
}

// Traffic is what Counters have counted so far.
type Traffic struct {
	// Requests that were started; a page of a listing counts as one.
	Requests int64 `json:"requests"`
	// Failures are the requests that ended with an error; blobs that are not there do not count.
	Failures int64 `json:"failures"`
	// BytesUp and BytesDown are contents of blobs, without names and headers.
	BytesUp   int64 `json:"bytesUp"`
	BytesDown int64 `json:"bytesDown"`
}

// Snapshot returns the counts of now.
func (c *Counters) Snapshot() Traffic {
	return Traffic{
		Requests: c.requests.Load(), Failures: c.failures.Load(),
		BytesUp: c.uploaded.Load(), BytesDown: c.downloaded.Load(),
	}
}

// Limiter bounds bytes per second. One Limiter may be shared by any number of
// stores: the bound is of their sum. A nil Limiter has no bound.
type Limiter struct {
	limiter *rate.Limiter
	clock   clock.Clock
	chunk   int
}

const (
	minBurst = 16 << 10
	maxBurst = 1 << 20
)

// NewLimiter makes a Limiter; nil, which is no bound, where bytesPerSecond is not above 0.
func NewLimiter(bytesPerSecond int64, c clock.Clock) *Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}

	burst := int(min(max(bytesPerSecond/10, minBurst), maxBurst)) // a tenth of a second's worth

	return &Limiter{limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), burst), clock: c, chunk: burst}
}

// wait holds the caller until n bytes may have moved. Waiting is not a stall.
func (l *Limiter) wait(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}

	release := pulseOf(ctx).hold()
	defer release()

	for n > 0 {
		part := min(n, l.chunk)
		n -= part

		if err := l.waitPart(ctx, part); err != nil {
			return err
		}
	}

	return nil
}

func (l *Limiter) waitPart(ctx context.Context, n int) error {
	now := l.clock.Now()
	r := l.limiter.ReserveN(now, n)

	delay := r.DelayFrom(now)
	if delay <= 0 {
		return nil
	}

	t := l.clock.NewTimer(delay)
	defer t.Stop()

	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		r.CancelAt(l.clock.Now())

		return context.Cause(ctx) // the layers above say what was canceled
	}
}

func (l *Limiter) size() int {
	if l == nil {
		return 0
	}

	return l.chunk
}

// metered counts what moves and holds it to the limits.
type metered struct {
	blob.Storage

	counters *Counters
	up, down *Limiter
}

func (m *metered) count(err error) error {
	m.counters.requests.Add(1)

	if err != nil && !expected(err) {
		m.counters.failures.Add(1)
	}

	return err
}

func (m *metered) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	moved := func(n int) error {
		m.counters.downloaded.Add(int64(n))

		return m.down.wait(ctx, n)
	}

	if b, ok := out.(*observedBuffer); ok {
		return m.count(m.Storage.GetBlob(ctx, id, offset, length, b.also(moved, m.down.size())))
	}

	private := like(out)
	if err := m.count(m.Storage.GetBlob(ctx, id, offset, length, &observedBuffer{Buffer: private, moved: moved, chunk: m.down.size()})); err != nil {
		return err
	}

	return private.hand(out)
}

// also calls next besides, and takes the smaller of the chunks.
func (b *observedBuffer) also(next func(int) error, chunk int) *observedBuffer {
	before := b.moved

	return &observedBuffer{Buffer: b.Buffer, chunk: chunk, moved: func(n int) error {
		if err := before(n); err != nil {
			return err
		}

		return next(n)
	}}
}

func (m *metered) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	moved := func(n int) error {
		m.counters.uploaded.Add(int64(n))

		return m.up.wait(ctx, n)
	}

	return m.count(m.Storage.PutBlob(ctx, id, &observedBytes{Bytes: data, moved: moved, chunk: m.up.size()}, o))
}

func (m *metered) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	md, err := m.Storage.GetMetadata(ctx, id)

	return md, m.count(err)
}

func (m *metered) DeleteBlob(ctx context.Context, id blob.ID) error {
	return m.count(m.Storage.DeleteBlob(ctx, id))
}

func (m *metered) listPage(ctx context.Context, prefix blob.ID, after string) (page, error) {
	p, err := listPage(ctx, m.Storage, prefix, after)

	return p, m.count(err)
}
