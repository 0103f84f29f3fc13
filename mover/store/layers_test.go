package store_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
)

// scripted is memory whose every call first asks fail, with the number of the call from 1.
type scripted struct {
	*memoryStorage

	calls atomic.Int64
	fail  func(ctx context.Context, call int64) error
}

func (s *scripted) ask(ctx context.Context) error { return s.fail(ctx, s.calls.Add(1)) }

func (s *scripted) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if err := s.ask(ctx); err != nil {
		_, _ = out.Write([]byte("half of it"))

		return err
	}

	return s.memoryStorage.GetBlob(ctx, id, offset, length, out)
}

func (s *scripted) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if err := s.ask(ctx); err != nil {
		return err
	}

	return s.memoryStorage.PutBlob(ctx, id, data, o)
}

func (s *scripted) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	err := s.ask(ctx)

	// What fails, fails after half of the listing.
	if listErr := s.memoryStorage.ListBlobs(ctx, prefix, callback); listErr != nil {
		return listErr
	}

	return err
}

var errUnavailable = engine.Errorf(engine.CodeStoreUnavailable, "the store answered 503")

func failFirst(n int64, err error) func(context.Context, int64) error {
	return func(_ context.Context, call int64) error {
		if call <= n {
			return err
		}

		return nil
	}
}

// instant is a clock on which waiting takes no time and yet passes.
type instant struct{ *clocktesting.FakeClock }

func newInstant() *instant {
	return &instant{clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
}

type firedTimer struct{ c chan time.Time }

func (f firedTimer) C() <-chan time.Time      { return f.c }
func (f firedTimer) Stop() bool               { return true }
func (f firedTimer) Reset(time.Duration) bool { return true }

// NewTimer lets the time pass at once, but for the stall watch, whose timer is as long as its bound.
func (i *instant) NewTimer(d time.Duration) clock.Timer {
	if d >= store.DefaultStallAfter-time.Second {
		return firedTimer{make(chan time.Time)}
	}

	i.Step(d)

	c := make(chan time.Time, 1)
	c <- i.Now()

	return firedTimer{c}
}

func TestFailuresAreRepeatedWhileTheyMayPass(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		fail  func(context.Context, int64) error
		code  engine.Code
		is    error
		calls int64
	}{
		"a store that comes back":             {fail: failFirst(20, errUnavailable), calls: 21},
		"a store that stays away":             {fail: failFirst(1<<60, errUnavailable), code: engine.CodeStoreUnavailable, calls: -50},
		"a stalled store that comes back":     {fail: failFirst(2, engine.Errorf(engine.CodeStoreStalled, "x")), calls: 3},
		"refused credentials":                 {fail: failFirst(1, engine.Errorf(engine.CodeCredentialsInvalid, "x")), code: engine.CodeCredentialsInvalid, calls: 1},
		"an invalid request":                  {fail: failFirst(1, engine.Errorf(engine.CodeInvalidRequest, "x")), code: engine.CodeInvalidRequest, calls: 1},
		"a blob that is not there":            {fail: failFirst(1, blob.ErrBlobNotFound), is: blob.ErrBlobNotFound, calls: 1},
		"a blob that came short once":         {fail: failFirst(1, blob.ErrInvalidRange), calls: 2},
		"a blob that is short":                {fail: failFirst(1<<60, blob.ErrInvalidRange), is: blob.ErrInvalidRange, calls: 2},
		"an error that nobody has classified": {fail: failFirst(1, errors.New("x")), code: engine.CodeInternal, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := context.Background()
			inner := &scripted{memoryStorage: newMemory(), fail: c.fail}
			require.NoError(t, inner.memoryStorage.PutBlob(ctx, "p1", store.Memory("content"), blob.PutOptions{}))

			got, err := read(ctx, store.Layer(inner, store.Options{Clock: newInstant(), Random: func() float64 { return 1 }}), "p1")

			switch {
			case c.is != nil:
				require.ErrorIs(t, err, c.is)
			case c.code != "":
				require.Equal(t, c.code, engine.CodeOf(err))
			default:
				require.NoError(t, err)
				require.Equal(t, "content", string(got))
			}

			if c.calls < 0 { // at least that many, within 15 minutes of at most 15 s each
				require.Greater(t, inner.calls.Load(), -c.calls)
				require.Less(t, inner.calls.Load(), int64(80))

				return
			}

			require.Equal(t, c.calls, inner.calls.Load())
		})
	}
}

func TestAListingThatBreaksOffIsGivenOnceAndWhole(t *testing.T) {
	t.Parallel()

	ctx := context.Background()
	inner := &scripted{memoryStorage: newMemory(), fail: failFirst(3, errUnavailable)}

	for _, id := range []blob.ID{"p1", "p2", "p3"} {
		require.NoError(t, inner.memoryStorage.PutBlob(ctx, id, store.Memory("x"), blob.PutOptions{}))
	}

	all, err := blob.ListAllBlobs(ctx, store.Layer(inner, store.Options{Clock: newInstant()}), "p")
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, int64(4), inner.calls.Load())
}

func TestAStalledAttemptIsCutAndRepeated(t *testing.T) {
	t.Parallel()

	for name, hang := range map[string]func(ctx context.Context){
		"one that heeds its context": func(ctx context.Context) { <-ctx.Done() },
		"one that heeds nothing":     func(context.Context) { select {} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var counters store.Counters

			ctx := context.Background()
			inner := &scripted{memoryStorage: newMemory(), fail: func(ctx context.Context, call int64) error {
				if call == 1 {
					hang(ctx)

					return ctx.Err()
				}

				return nil
			}}
			st := store.Layer(inner, store.Options{RetryFor: time.Minute, StallAfter: 50 * time.Millisecond, Counters: &counters})

			require.NoError(t, st.PutBlob(ctx, "p1", store.Memory("content"), blob.PutOptions{}))
			got, err := read(ctx, st, "p1")
			require.NoError(t, err)
			require.Equal(t, "content", string(got))
		})
	}
}

func TestAStoreThatStallsForGoodIsNamedSo(t *testing.T) {
	t.Parallel()

	inner := &scripted{memoryStorage: newMemory(), fail: func(ctx context.Context, _ int64) error {
		<-ctx.Done()

		return ctx.Err()
	}}
	client := brokered(t, store.Layer(inner, store.Options{RetryFor: 200 * time.Millisecond, StallAfter: 30 * time.Millisecond}), store.BrokerOptions{})

	_, err := read(context.Background(), client, "p1")
	require.Equal(t, engine.CodeStoreStalled, engine.CodeOf(err))
	require.Equal(t, engine.CodeStoreStalled, engine.CodeOf(client.Err()))

	calls := inner.calls.Load()
	_, err = client.GetMetadata(context.Background(), "p1")
	require.Equal(t, engine.CodeStoreStalled, engine.CodeOf(err), "the first failure stays")
	require.Equal(t, calls, inner.calls.Load())
}

func TestACancelEndsEverythingSoon(t *testing.T) {
	t.Parallel()

	started := make(chan struct{}, 1)
	ended := make(chan struct{})
	inner := &scripted{memoryStorage: newMemory(), fail: func(ctx context.Context, _ int64) error {
		started <- struct{}{}
		<-ctx.Done()
		close(ended)

		return ctx.Err()
	}}
	client := brokered(t, store.Layer(inner, store.Options{}), store.BrokerOptions{})

	ctx, cancel := context.WithCancel(context.Background())

	go func() {
		<-started
		cancel()
	}()

	_, err := read(ctx, client, "p1")
	require.Equal(t, engine.CodeCanceled, engine.CodeOf(err))
	require.NoError(t, client.Err(), "a cancel is not the store's failure")

	select {
	case <-ended: // on the broker's side too
	case <-time.After(10 * time.Second):
		t.Fatal("the broker's request went on")
	}
}

func TestTheBandwidthIsLimitedAndWaitingIsNoStall(t *testing.T) {
	t.Parallel()

	const rate, size = 32 << 10, 64 << 10 // each wait is half a second

	var counters store.Counters

	ctx := context.Background()
	st := store.Layer(newMemory(), store.Options{
		StallAfter: 300 * time.Millisecond, RetryFor: -1, Counters: &counters,
		Upload: store.NewLimiter(rate, realClock()), Download: store.NewLimiter(rate, realClock()),
	})

	for name, move := range map[string]func() error{
		"up":   func() error { return st.PutBlob(ctx, "p1", store.Memory(noise(size)), blob.PutOptions{}) },
		"down": func() error { _, err := read(ctx, st, "p1"); return err },
	} {
		if name == "down" {
			require.NoError(t, st.PutBlob(ctx, "p1", store.Memory(noise(size)), blob.PutOptions{}))
		}

		start := time.Now()

		require.NoError(t, move(), name)
		require.Greater(t, time.Since(start), time.Second, name)
	}

	traffic := counters.Snapshot()
	require.GreaterOrEqual(t, traffic.BytesUp, int64(size))
	require.Equal(t, int64(size), traffic.BytesDown)
	require.Zero(t, traffic.Failures)
	require.Nil(t, store.NewLimiter(0, realClock()))
}

// forgetful acknowledges what it does not keep.
type forgetful struct {
	*memoryStorage

	lose func(id blob.ID, content []byte) []byte
}

func (f *forgetful) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	r := data.Reader()
	defer r.Close()

	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}

	if content = f.lose(id, content); content == nil {
		return nil
	}

	return f.memoryStorage.PutBlob(ctx, id, store.Memory(content), o)
}

func TestALostWriteIsFound(t *testing.T) {
	t.Parallel()

	cut := func(id blob.ID) func(blob.ID, []byte) []byte {
		return func(got blob.ID, content []byte) []byte {
			if got == id {
				return content[:len(content)-1]
			}

			return content
		}
	}

	for name, c := range map[string]struct {
		lose  func(blob.ID, []byte) []byte
		blobs int
		lost  string
	}{
		"none of a few":   {func(_ blob.ID, b []byte) []byte { return b }, 10, ""},
		"none of many":    {func(_ blob.ID, b []byte) []byte { return b }, 300, ""},
		"one cut of few":  {cut("p7"), 10, "p7"},
		"one cut of many": {cut("p77"), 300, "p77"},
		"one missing of many": {func(id blob.ID, b []byte) []byte {
			if id == "p77" {
				return nil
			}

			return b
		}, 300, "p77"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := context.Background()
			client := brokered(t, &forgetful{memoryStorage: newMemory(), lose: c.lose}, store.BrokerOptions{})

			for i := range c.blobs {
				require.NoError(t, client.PutBlob(ctx, blob.ID("p"+itoa(i)), store.Memory(noise(100)), blob.PutOptions{}))
			}

			require.NoError(t, client.PutBlob(ctx, "s-marker", store.Memory("x"), blob.PutOptions{}))
			require.NoError(t, client.DeleteBlob(ctx, "s-marker"))
			require.Len(t, client.Written(), c.blobs)

			err := client.VerifyWritten(ctx)
			if c.lost == "" {
				require.NoError(t, err)

				return
			}

			require.Equal(t, engine.CodeStoreLostWrite, engine.CodeOf(err))
			require.ErrorContains(t, err, c.lost)
			require.Equal(t, engine.CodeStoreLostWrite, engine.CodeOf(client.Err()))
		})
	}
}

func TestAPanicOverAnAnswerIsAnError(t *testing.T) {
	t.Parallel()

	st := store.Layer(&scripted{memoryStorage: newMemory(), fail: func(context.Context, int64) error {
		var none []byte

		_ = none[7]

		return nil
	}}, store.Options{})

	var out store.Buffer

	for name, err := range map[string]error{
		"get":  st.GetBlob(t.Context(), "p1", 0, -1, &out),
		"put":  st.PutBlob(t.Context(), "p1", store.Memory("x"), blob.PutOptions{}),
		"list": st.ListBlobs(t.Context(), "p", func(blob.Metadata) error { return nil }),
	} {
		require.Equal(t, engine.CodeInternal, engine.CodeOf(err), name)
		require.ErrorContains(t, err, "index out of range", name)
		require.ErrorContains(t, err, "layers_test.go:", name)
	}
}

func TestWhatWasFoundIsNotAskedForAgain(t *testing.T) {
	t.Parallel()

	ctx := context.Background()
	memory := newMemory()
	client := brokered(t, memory, store.BrokerOptions{})

	require.NoError(t, client.PutBlob(ctx, "p1", store.Memory("x"), blob.PutOptions{}))
	require.NoError(t, client.VerifyWritten(ctx))
	require.NoError(t, memory.DeleteBlob(ctx, "p1"))
	require.NoError(t, client.VerifyWritten(ctx), "it was there when it was looked for")

	require.NoError(t, client.PutBlob(ctx, "p2", store.Memory("x"), blob.PutOptions{}))
	require.NoError(t, memory.DeleteBlob(ctx, "p2"))
	require.ErrorContains(t, client.VerifyWritten(ctx), "p2", "what was written since is looked for")
}
