package store_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
)

func itoa(i int) string { return strconv.Itoa(i) }

// guarded fails the test when a call reaches it with an ID that must not pass.
type guarded struct {
	*memoryStorage

	t testing.TB
}

func (g *guarded) check(id blob.ID) {
	if strings.ContainsAny(string(id), "/\\%\x00 ") || strings.Contains(string(id), "..") {
		g.t.Errorf("blob ID %q has passed the broker", id)
	}
}

func (g *guarded) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	g.check(id)

	return g.memoryStorage.GetBlob(ctx, id, offset, length, out)
}

func (g *guarded) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	g.check(id)

	return g.memoryStorage.GetMetadata(ctx, id)
}

func (g *guarded) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	g.check(id)

	return g.memoryStorage.PutBlob(ctx, id, data, o)
}

func (g *guarded) DeleteBlob(ctx context.Context, id blob.ID) error {
	g.check(id)

	return g.memoryStorage.DeleteBlob(ctx, id)
}

func (g *guarded) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	g.check(prefix)

	return g.memoryStorage.ListBlobs(ctx, prefix, callback)
}

func FuzzTheBrokerLetsNoOddPathPass(f *testing.F) {
	for _, seed := range []struct{ method, target string }{
		{"GET", "/blobs/p1?offset=0&length=-1"},
		{"GET", "/blobs/../p1?offset=0&length=-1"},
		{"GET", "/blobs/..%2fp1?offset=0&length=5"},
		{"PUT", "/blobs/%2e%2e"},
		{"PUT", "/blobs/a%00b?modtime=1"},
		{"DELETE", "/blobs//etc/passwd"},
		{"GET", "/metadata/a%5cb"},
		{"GET", "/blobs?prefix=../"},
		{"GET", "/blobs/p1?offset=-9223372036854775808&length=9223372036854775807"},
		{"PATCH", "/capacity"},
		{"GET", "//capacity"},
	} {
		f.Add(seed.method, seed.target, "content")
	}

	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(target, "/") {
			return
		}

		r, err := http.NewRequest(method, "http://broker/", strings.NewReader(body))
		if err != nil {
			return
		}

		u.Scheme, u.Host = "http", "broker"
		r.URL, r.RequestURI = u, target

		inner := newMemory()
		require.NoError(t, inner.PutBlob(context.Background(), "p1", store.Memory("content"), blob.PutOptions{}))

		w := httptest.NewRecorder()
		store.NewBroker(&guarded{memoryStorage: inner, t: t}, store.BrokerOptions{}).ServeHTTP(w, r)

		if w.Code >= http.StatusMultipleChoices && w.Code < http.StatusBadRequest {
			t.Errorf("%s %q was answered by a redirect", method, target)
		}
	})
}

func TestTheBrokerServesManyRequestsWithinItsMemory(t *testing.T) {
	t.Parallel()

	const size = 1 << 20

	ctx := context.Background()
	// Room for two blobs at a time; a larger one passes alone.
	client := brokered(t, newMemory(), store.BrokerOptions{Room: store.NewRoom(2*size, 1)})

	var wg sync.WaitGroup

	for i := range 40 {
		wg.Go(func() {
			id := blob.ID("p" + itoa(i))
			content := noise(size + i)

			if err := client.PutBlob(ctx, id, store.Memory(content), blob.PutOptions{}); err != nil {
				t.Error(err)

				return
			}

			if got, err := read(ctx, client, id); err != nil || len(got) != len(content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}

	wg.Wait()

	require.NoError(t, client.PutBlob(ctx, "large", store.Memory(noise(5*size)), blob.PutOptions{}))
	require.NoError(t, client.VerifyWritten(ctx))
}

func TestAWorkerWhoseBrokerIsGoneSaysSo(t *testing.T) {
	t.Parallel()

	brokerEnd, workerEnd, err := store.SocketPair()
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)

	go func() { served <- store.NewBroker(newMemory(), store.BrokerOptions{}).Serve(ctx, brokerEnd) }()

	client, err := store.NewClient(workerEnd, store.ClientOptions{})
	require.NoError(t, err)

	require.NoError(t, client.PutBlob(context.Background(), "p1", store.Memory("x"), blob.PutOptions{}))
	cancel()

	select {
	case err := <-served:
		require.Equal(t, engine.CodeCanceled, engine.CodeOf(err))
	case <-time.After(10 * time.Second):
		t.Fatal("the broker went on")
	}

	_, err = read(context.Background(), client, "p1")
	require.Equal(t, engine.CodeStoreUnavailable, engine.CodeOf(err))
	require.Equal(t, engine.CodeStoreUnavailable, engine.CodeOf(client.Err()))
	require.NoError(t, client.Close(context.Background()))
}

func TestABlobThatIsAnnouncedTooLargeIsNotTaken(t *testing.T) {
	t.Parallel()

	r := httptest.NewRequest(http.MethodPut, "/blobs/p1", io.LimitReader(strings.NewReader(""), 0))
	r.ContentLength = store.MaxBlobSize + 1

	w := httptest.NewRecorder()
	store.NewBroker(newMemory(), store.BrokerOptions{}).ServeHTTP(w, r)
	require.Equal(t, http.StatusBadRequest, w.Code)
}
