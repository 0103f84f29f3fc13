package store_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/store"
)

// counting is memory that tells how many bytes are read and written at most at a time.
type counting struct {
	*memoryStorage

	now, most *atomic.Int64
	size      int64
}

func (c *counting) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	now := c.now.Add(c.size)
	defer c.now.Add(-c.size)

	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
		runtime.Gosched()
	}

	return c.memoryStorage.PutBlob(ctx, id, data, o)
}

func TestBrokersShareTheRoom(t *testing.T) {
	t.Parallel()

	const size = 1 << 20

	var (
		now, most atomic.Int64
		wg        sync.WaitGroup
		room      = store.NewRoom(6*size, 3)
	)

	for range 3 {
		client := brokered(t, &counting{memoryStorage: newMemory(), now: &now, most: &most, size: size}, store.BrokerOptions{Room: room})

		for i := range 20 {
			wg.Go(func() {
				if err := client.PutBlob(t.Context(), blob.ID("p"+itoa(i)), store.Memory(noise(size)), blob.PutOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
	}

	wg.Wait()
	require.LessOrEqual(t, most.Load(), int64(6*size))
}

// A worker that asks for a blob and takes none of it, and one that announces one and sends none.
func TestAWorkerThatDoesNotMoveGivesItsRoomBack(t *testing.T) {
	t.Parallel()

	const size = 9 << 20 // more than the connection's window

	for name, begin := range map[string]func(c *http.ClientConn) (*http.Response, error){
		"it does not read": func(c *http.ClientConn) (*http.Response, error) {
			r, err := http.NewRequest(http.MethodGet, "http://broker/blobs/p1?offset=0&length="+itoa(size), nil)
			if err != nil {
				return nil, err
			}

			return c.RoundTrip(r)
		},
		"it does not write": func(c *http.ClientConn) (*http.Response, error) {
			never, _ := io.Pipe()

			r, err := http.NewRequest(http.MethodPut, "http://broker/blobs/p2", never)
			if err != nil {
				return nil, err
			}

			r.ContentLength = size

			return c.RoundTrip(r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			st := newMemory()
			require.NoError(t, st.PutBlob(t.Context(), "p1", store.Memory(noise(size)), blob.PutOptions{}))

			room := store.NewRoom(size, 1)
			brokerEnd, workerEnd := net.Pipe()

			go func() {
				_ = store.NewBroker(st, store.BrokerOptions{Room: room, WorkerTimeout: 100 * time.Millisecond}).ServeConn(t.Context(), brokerEnd)
			}()

			var protocols http.Protocols

			protocols.SetUnencryptedHTTP2(true)

			transport := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return workerEnd, nil }}

			idle, err := transport.NewClientConn(t.Context(), "http", "broker:80")
			require.NoError(t, err)

			began := make(chan struct{})

			go func() {
				defer close(began)

				if answer, err := begin(idle); err == nil {
					t.Cleanup(func() { _ = answer.Body.Close() })
				}
			}()

			if strings.Contains(name, "read") {
				<-began // the answer has begun, so that it holds all the room
			}

			other := brokered(t, st, store.BrokerOptions{Room: room})
			got, err := read(t.Context(), other, "p1")
			require.NoError(t, err)
			require.Len(t, got, size)
			require.NoError(t, idle.Close())
			<-began
		})
	}
}
