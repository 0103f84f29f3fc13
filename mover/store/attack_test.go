package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/store"
)

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)

	return len(p), nil
}

// vast is an S3 server with a bucket of as many blobs as it is told, of any size: none of them is kept anywhere.
type vast struct {
	blobs int
	// sizes of blobs by the first letter of their IDs.
	sizes map[byte]int64
}

// ServeHTTP answers what the broker's storage asks.
func (v *vast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Last-Modified", time.Unix(1_700_000_000, 0).UTC().Format(http.TimeFormat))
	w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)

	if r.URL.Query().Has("list-type") {
		v.list(w, r.URL.Query())

		return
	}

	if r.Method == http.MethodPut {
		_, _ = io.Copy(io.Discard, r.Body)

		return
	}

	from, size := int64(0), v.sizes[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1]]

	if ranged, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		first, last, _ := strings.Cut(ranged, "-")
		from, _ = strconv.ParseInt(first, 10, 64)
		to, _ := strconv.ParseInt(last, 10, 64)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, size))

		size = to + 1 - from
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}

	if r.Method == http.MethodGet {
		_, _ = io.CopyN(w, zeros{}, size)
	}
}

func (v *vast) list(w io.Writer, q url.Values) {
	const pageOf = 1000

	prefix, from := q.Get("prefix"), 0

	last := q.Get("continuation-token")
	if last == "" {
		last = strings.TrimPrefix(q.Get("start-after"), prefix)
	}

	if last != "" {
		n, _ := strconv.Atoi(last)
		from = n + 1
	}

	to := min(from+pageOf, v.blobs)

	_, _ = fmt.Fprintf(w, "<ListBucketResult><IsTruncated>%t</IsTruncated><NextContinuationToken>%d</NextContinuationToken>", to < v.blobs, to-1)

	for i := from; i < to; i++ {
		_, _ = fmt.Fprintf(w, "<Contents><Key>%s%032d</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>", prefix, i)
	}

	_, _ = io.WriteString(w, "</ListBucketResult>")
}

func openVast(t *testing.T, v *vast) blob.Storage {
	t.Helper()

	server := httptest.NewServer(v)
	t.Cleanup(server.Close)

	return openS3(t, strings.TrimPrefix(server.URL, "http://"), good(), quick())
}

// takenOver connects to a broker as a worker does that speaks the protocol by itself.
func takenOver(t *testing.T, b *store.Broker) *http.ClientConn {
	t.Helper()

	brokerEnd, workerEnd, err := store.SocketPair()
	require.NoError(t, err)

	go func() { _ = b.Serve(t.Context(), brokerEnd) }()

	conn, err := net.FileConn(workerEnd)
	require.NoError(t, err)
	require.NoError(t, workerEnd.Close())

	var protocols http.Protocols

	protocols.SetUnencryptedHTTP2(true)

	transport := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}

	c, err := transport.NewClientConn(t.Context(), "http", "broker:80")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })

	return c
}

// ask sends a request and leaves the answer's body to the caller.
func ask(t *testing.T, c *http.ClientConn, method, path string, body io.Reader, size int64) (*http.Response, error) {
	t.Helper()

	r, err := http.NewRequestWithContext(t.Context(), method, "http://broker"+path, body)
	if err != nil {
		return nil, err
	}

	r.ContentLength = size

	return c.RoundTrip(r)
}

// highest looks at the heap until stop is called, which gives the most that was in use.
func highest() (stop func() uint64) {
	var most atomic.Uint64

	done, ended := make(chan struct{}), make(chan struct{})

	go func() {
		defer close(ended)

		heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}

		ticks := time.NewTicker(5 * time.Millisecond)
		defer ticks.Stop()

		for {
			metrics.Read(heap)
			most.Store(max(most.Load(), heap[0].Value.Uint64()))

			select {
			case <-ticks.C:
			case <-done:
				return
			}
		}
	}()

	return func() uint64 {
		close(done)
		<-ended

		return most.Load()
	}
}

// Not beside other tests: their memory would count.
//
//nolint:paralleltest // see above
func TestWhateverAWorkerAsksForTheBrokersMemoryIsBounded(t *testing.T) {
	const (
		roomSize = 64 << 20
		blobs    = 1_000_000
		// What was used and is not collected yet, and all else in this process.
		bound = 4 * roomSize
	)

	room := store.NewRoom(roomSize, 3)
	st := openVast(t, &vast{blobs: blobs, sizes: map[byte]int64{'p': 10 << 20, 'x': store.MaxBlobSize}})
	evil := takenOver(t, store.NewBroker(st, store.BrokerOptions{Room: room, Spool: t.TempDir()}))

	runtime.GC()

	stop := highest()

	var attack sync.WaitGroup

	for range 2 {
		attack.Go(func() {
			answer, err := ask(t, evil, http.MethodGet, "/blobs/x1?offset=0&length=-1", nil, 0)
			if assert.NoError(t, err) {
				n, err := io.Copy(io.Discard, answer.Body)
				assert.NoError(t, errors.Join(err, answer.Body.Close()))
				assert.Equal(t, int64(store.MaxBlobSize), n)
			}
		})
	}

	attack.Go(func() {
		answer, err := ask(t, evil, http.MethodPut, "/blobs/x2", io.LimitReader(zeros{}, store.MaxBlobSize), store.MaxBlobSize)
		if assert.NoError(t, err) {
			assert.Equal(t, http.StatusOK, answer.StatusCode)
			assert.NoError(t, answer.Body.Close())
		}
	})

	attack.Go(func() {
		answer, err := ask(t, evil, http.MethodGet, "/blobs?prefix=p", nil, 0)
		if err != nil {
			assert.NoError(t, err)
			return
		}
		defer answer.Body.Close()

		lines := 0

		for b := make([]byte, 64<<10); err == nil; {
			var n int

			n, err = answer.Body.Read(b)
			lines += bytes.Count(b[:n], []byte("\n"))
		}

		assert.Equal(t, io.EOF, err)
		assert.Equal(t, blobs+1, lines, "the last says how many there were")
	})

	// An ordinary job beside it goes on.
	beside := brokered(t, st, store.BrokerOptions{Room: room, Spool: t.TempDir()})
	content := store.Memory(make([]byte, 10<<20))

	var out store.Buffer

	for i := range 10 {
		require.NoError(t, beside.PutBlob(t.Context(), blob.ID("p"+itoa(i)), content, blob.PutOptions{}))
		require.NoError(t, beside.GetBlob(t.Context(), "p1", 0, int64(len(content)), &out))
		require.Equal(t, len(content), out.Length())
	}

	attack.Wait()

	most := stop()
	t.Logf("%d MiB at most", most>>20)
	require.Less(t, most, uint64(bound))
}

func TestAWorkerThatDoesNotReadStarvesNobody(t *testing.T) {
	t.Parallel()

	const size = 16 << 20

	// timed returns how long the quickest of some is, so that what the machine does besides counts less.
	timed := func(c *store.Client) time.Duration {
		best := time.Hour

		for range 5 {
			var out store.Buffer

			start := time.Now()

			require.NoError(t, c.GetBlob(t.Context(), "p1", 0, size, &out))

			best = min(best, time.Since(start))
		}

		return best
	}

	st := newMemory()
	require.NoError(t, st.PutBlob(t.Context(), "p1", store.Memory(noise(size)), blob.PutOptions{}))

	room := store.NewRoom(64<<20, 3)
	worker := brokered(t, st, store.BrokerOptions{Room: room})
	alone := timed(worker)

	evil := takenOver(t, store.NewBroker(st, store.BrokerOptions{Room: room, WorkerTimeout: time.Hour}))
	begun := make(chan struct{}, 8)

	for range 8 {
		go func() {
			// Those that have no room wait until the end of the test.
			if answer, err := ask(t, evil, http.MethodGet, "/blobs/p1?offset=0&length="+itoa(size), nil, 0); err == nil {
				begun <- struct{}{}

				<-t.Context().Done()

				_ = answer.Body.Close()
			}
		}()
	}

	<-begun // it holds what it can get, and reads none of it

	besides := timed(worker)
	require.Less(t, besides, 50*alone+50*time.Millisecond, "alone it takes %s", alone)

	// One that comes later finds its part, too.
	later := brokered(t, st, store.BrokerOptions{Room: room})
	require.Less(t, timed(later), 50*alone+50*time.Millisecond, "alone it takes %s", alone)
}

func TestABlobThatIsLargerThanTheRoomComesThrough(t *testing.T) {
	t.Parallel()

	const size = 20 << 20

	client := brokered(t, openFolder(t, t.TempDir(), quick()), store.BrokerOptions{Room: store.NewRoom(3<<20, 3), Spool: t.TempDir()})
	content := noise(size)

	require.NoError(t, client.PutBlob(t.Context(), "x1", store.Memory(content), blob.PutOptions{}))

	for name, r := range map[string]struct{ offset, length int64 }{"all, of no known size": {0, -1}, "all": {0, size}, "a part": {1 << 20, 15 << 20}} {
		var out store.Buffer

		require.NoError(t, client.GetBlob(t.Context(), "x1", r.offset, r.length, &out), name)

		want := content[r.offset:]
		if r.length >= 0 {
			want = want[:r.length]
		}

		require.Equal(t, len(want), out.Length(), name)
		require.True(t, bytes.Equal(want, out.Bytes()), name)
	}
}

// A server that sends all where a part was asked for.
func TestAStoreThatSendsMoreThanWasAskedForIsNotListenedTo(t *testing.T) {
	t.Parallel()

	var sent atomic.Int64

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))

		n, _ := io.CopyN(w, zeros{}, 1<<30)
		sent.Add(n)
	}))
	t.Cleanup(server.Close)

	client := brokered(t, openS3(t, strings.TrimPrefix(server.URL, "http://"), good(), store.Options{RetryFor: -1}), store.BrokerOptions{})

	var out store.Buffer

	require.ErrorContains(t, client.GetBlob(t.Context(), "p1", 0, 1000, &out), "gave more of blob p1 than the 1000 bytes")
	server.CloseClientConnections()
	require.Less(t, sent.Load(), int64(1<<30))
}

func TestARequestOfHugeHeadersIsNotTaken(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(r *http.Request){
		"one header": func(r *http.Request) { r.Header.Set("X", strings.Repeat("x", 20<<10)) },
		"many headers": func(r *http.Request) {
			for i := range 2000 {
				r.Header.Set("X-"+itoa(i), "x")
			}
		},
		"a path": func(r *http.Request) { r.URL.Path = "/blobs/" + strings.Repeat("x", 20<<10) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://broker/capacity", nil)
			require.NoError(t, err)
			change(r)

			answer, err := takenOver(t, store.NewBroker(newMemory(), store.BrokerOptions{})).RoundTrip(r)
			if err != nil {
				return // the connection has ended
			}

			require.NoError(t, answer.Body.Close())
			require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, answer.StatusCode)
		})
	}
}
