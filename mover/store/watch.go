package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/engine"
)

var errStalled = errors.New("no byte moved")

// watched ends an attempt in which no byte has moved for the bound, and leaves
// one behind that does not end when it is told to (a hung file system does not):
// whoever waits goes on after the grace. For that, an attempt works on buffers
// of its own, and what it read is handed on only when it is complete.
type watched struct {
	blob.Storage

	bound time.Duration
	grace time.Duration
	clock clock.Clock
}

func newWatched(st blob.Storage, o Options) *watched {
	o = o.withDefaults()

	return &watched{Storage: st, bound: o.StallAfter, grace: min(defaultGrace, o.StallAfter), clock: o.Clock}
}

// pulse knows when a byte moved last.
type pulse struct {
	clock clock.PassiveClock
	last  atomic.Int64
	held  atomic.Int32
}

func newPulse(c clock.PassiveClock) *pulse {
	p := &pulse{clock: c}
	p.beat()

	return p
}

func (p *pulse) beat() { p.last.Store(p.clock.Now().UnixNano()) }

// idle returns how long no byte has moved; a wait for the bandwidth limit does not count.
func (p *pulse) idle() time.Duration {
	if p.held.Load() > 0 {
		return 0
	}

	return time.Duration(p.clock.Now().UnixNano() - p.last.Load())
}

// hold says that waiting is wanted; the returned function ends that.
func (p *pulse) hold() (release func()) {
	p.held.Add(1)

	return func() {
		p.beat()
		p.held.Add(-1)
	}
}

type pulseKey struct{}

// pulseOf returns the pulse of the attempt that ctx belongs to; one that nobody watches where there is none.
func pulseOf(ctx context.Context) *pulse {
	if p, ok := ctx.Value(pulseKey{}).(*pulse); ok {
		return p
	}

	return newPulse(clock.RealClock{})
}

func (w *watched) run(ctx context.Context, attempt func(ctx context.Context) error) error {
	p := newPulse(w.clock)

	inner, cancel := context.WithCancelCause(context.WithValue(ctx, pulseKey{}, p))
	defer cancel(nil)

	done := make(chan error, 1)
	go func() { done <- guarded(inner, attempt) }()

	for {
		remaining := max(w.bound-p.idle(), time.Millisecond)
		timer := w.clock.NewTimer(remaining)

		select {
		case err := <-done:
			timer.Stop()

			return w.ended(ctx, err)
		case <-ctx.Done():
			timer.Stop()
			w.leave(done)

			return canceled(ctx, "request to the store")
		case <-timer.C():
			if p.idle() < w.bound {
				continue
			}

			cancel(errStalled)
			w.leave(done)

			return engine.Errorf(engine.CodeStoreStalled, "request to the store: %w for %s", errStalled, w.bound)
		}
	}
}

// guarded runs an attempt, and makes an error of a panic: what a store answers
// must not end the daemon, and with it all workers.
func guarded(ctx context.Context, attempt func(ctx context.Context) error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = engine.Errorf(engine.CodeInternal, "request to the store: panic: %v at %s", cause, origin())
		}
	}()

	return attempt(ctx)
}

// origin names the line that panicked, to a function that recovers from it.
func origin() string {
	const enough = 16

	callers := make([]uintptr, enough)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)]) // those who recover are no news

	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") || !more {
			return fmt.Sprintf("%s:%d", path.Base(f.File), f.Line)
		}
	}
}

// ended sets the code of a context's end, whatever a provider made of it.
func (w *watched) ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return canceled(ctx, "request to the store")
	}

	return err
}

// leave waits for an attempt that was told to end, but not for long.
func (w *watched) leave(done <-chan error) {
	timer := w.clock.NewTimer(w.grace)
	defer timer.Stop()

	select {
	case <-done: //nolint:errcheck // nobody asks any more how it ended
	case <-timer.C():
	}
}

func (w *watched) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	private := like(out)

	err := w.run(ctx, func(ctx context.Context) error {
		return w.Storage.GetBlob(ctx, id, offset, length, &observedBuffer{Buffer: private, moved: beat(ctx)})
	})
	if err != nil {
		return err
	}

	return private.hand(out)
}

func (w *watched) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	return answer(ctx, w, func(ctx context.Context) (blob.Metadata, error) {
		return w.Storage.GetMetadata(ctx, id)
	})
}

func (w *watched) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	wanted := o.GetModTime

	written, err := answer(ctx, w, func(ctx context.Context) (time.Time, error) {
		var t time.Time

		o := o
		if wanted != nil {
			o.GetModTime = &t
		}

		err := w.Storage.PutBlob(ctx, id, &observedBytes{Bytes: data, moved: beat(ctx)}, o)

		return t, err
	})
	if err == nil && wanted != nil {
		*wanted = written
	}

	return err
}

func (w *watched) DeleteBlob(ctx context.Context, id blob.ID) error {
	return w.run(ctx, func(ctx context.Context) error {
		return w.Storage.DeleteBlob(ctx, id)
	})
}

func (w *watched) listPage(ctx context.Context, prefix blob.ID, after string) (page, error) {
	return answer(ctx, w, func(ctx context.Context) (page, error) {
		return listPage(ctx, w.Storage, prefix, after)
	})
}

func (w *watched) GetCapacity(ctx context.Context) (blob.Capacity, error) {
	return answer(ctx, w, w.Storage.GetCapacity)
}

// answer runs an attempt that gives a value, which is passed on only when the attempt has ended.
func answer[T any](ctx context.Context, w *watched, attempt func(context.Context) (T, error)) (T, error) {
	values := make(chan T, 1)

	err := w.run(ctx, func(ctx context.Context) error {
		v, err := attempt(ctx)
		values <- v

		return err
	})
	if err != nil {
		var none T

		return none, err
	}

	return <-values, nil
}

// beat returns what an attempt calls when bytes have moved; it fails once the
// attempt was given up, so that a provider without regard to contexts stops too.
func beat(ctx context.Context) func(int) error {
	p := pulseOf(ctx)

	return func(int) error {
		p.beat()

		return context.Cause(ctx)
	}
}

// observedBytes calls moved for what was read of a blob's content.
type observedBytes struct {
	blob.Bytes

	moved func(n int) error
	// chunk bounds what is moved at a time, in bytes; 0 leaves it to the reader.
	chunk int
}

func (b *observedBytes) Reader() io.ReadSeekCloser {
	r := b.Bytes.Reader()

	return struct {
		observed
		io.Seeker
		io.Closer
	}{observed{r, b.moved, b.chunk}, r, r}
}

func (b *observedBytes) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{b.Reader()}) // the writer's own error, as io.WriterTo asks
}

// observed reads in pieces, and calls moved for each.
type observed struct {
	io.Reader

	moved func(n int) error
	chunk int
}

func (o observed) Read(p []byte) (int, error) {
	if o.chunk > 0 && len(p) > o.chunk {
		p = p[:o.chunk]
	}

	n, err := o.Reader.Read(p)
	if n > 0 {
		if refused := o.moved(n); refused != nil {
			return 0, refused
		}
	}

	return n, err // io.Reader gives io.EOF itself
}

// observedBuffer calls moved for what was written of a blob's content.
type observedBuffer struct {
	*Buffer

	moved func(n int) error
	// chunk bounds what is moved at a time, in bytes; 0 leaves it to the writer.
	chunk int
}

func (b *observedBuffer) Write(p []byte) (int, error) {
	if err := b.moved(len(p)); err != nil {
		return 0, err
	}

	return b.Buffer.Write(p)
}

// ReadFrom reads straight into the buffer.
func (b *observedBuffer) ReadFrom(r io.Reader) (int64, error) {
	return b.Buffer.ReadFrom(observed{r, b.moved, b.chunk})
}
