package store

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// DefaultMemory is how many bytes of blobs a Broker without a Room holds at a time.
	DefaultMemory = 128 << 20
	// DefaultWorkerTimeout is how long a worker may take to send or take one blob.
	DefaultWorkerTimeout = 2 * time.Minute
	// MaxBlobSize is the largest blob that is taken, in bytes. kopia's packs are
	// some 20 MB; indexes of very large repositories are more.
	MaxBlobSize = 512 << 20
	// pageWeight is what a page of a listing takes, in bytes, with all that it is made of.
	pageWeight = 4 << 20
)

// BrokerOptions say how a Broker serves.
type BrokerOptions struct {
	// ReadOnly refuses writes and deletes: for restores.
	ReadOnly bool
	// Room bounds the bytes of blobs held at a time, of all brokers that share
	// it; nil means one of this broker alone, of DefaultMemory.
	Room *Room
	// Spool is a folder on disk for a blob that is too large for the Room; empty
	// means that for temporary files.
	Spool string
	// WorkerTimeout is how long the worker may take to send or take one blob, and
	// so hold a part of the Room; 0 means DefaultWorkerTimeout.
	WorkerTimeout time.Duration
}

// Broker serves the storage of one repository to one worker. The storage must
// be confined to that repository already, as by Open. The worker is not
// trusted: a Broker checks all that it says, and knows nothing but blobs. It holds
// no more of them than its share of the Room, whatever the worker asks for.
type Broker struct {
	storage blob.Storage
	share   *share
	timeout time.Duration
	mux     *http.ServeMux

	spoolDir string
	// spooling is held by the one blob on disk.
	spooling chan struct{}
}

// NewBroker makes a Broker for st. It does not close st.
func NewBroker(st blob.Storage, o BrokerOptions) *Broker {
	if o.ReadOnly {
		st = readOnly{st}
	}

	if o.Room == nil {
		o.Room = NewRoom(DefaultMemory, 1)
	}

	if o.WorkerTimeout <= 0 {
		o.WorkerTimeout = DefaultWorkerTimeout
	}

	if o.Spool == "" {
		o.Spool = os.TempDir()
	}

	b := &Broker{
		storage: &checked{st}, share: &share{room: o.Room}, timeout: o.WorkerTimeout, mux: http.NewServeMux(),
		spoolDir: o.Spool, spooling: make(chan struct{}, 1),
	}

	b.handle("GET "+pathBlobs+"/{id}", b.get)
	b.handle("PUT "+pathBlobs+"/{id}", b.put)
	b.handle("DELETE "+pathBlobs+"/{id}", b.small(b.remove))
	b.handle("GET "+pathMetadata+"/{id}", b.small(b.metadata))
	b.handle("GET "+pathBlobs, b.list)
	b.handle("GET "+pathCapacity, b.small(b.capacity))

	return b
}

// ServeHTTP serves one request of the worker.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The mux would answer an unclean path by a redirect; no honest client sends one.
	if _, pattern := b.mux.Handler(r); pattern == "" || path.Clean(r.URL.Path) != r.URL.Path {
		fail(w, engine.Errorf(engine.CodeInvalidRequest, "%s %q is not served", r.Method, r.URL.Path))

		return
	}

	b.mux.ServeHTTP(w, r)
}

// handle registers a method that writes an answer, or fails before it has written any.
func (b *Broker) handle(pattern string, serve func(w http.ResponseWriter, r *http.Request) error) {
	b.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			fail(w, err)
		}
	})
}

func fail(w http.ResponseWriter, err error) {
	f := toFailure(err)

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status())
	reply(w, f)
}

// reply writes v; when the worker is gone there is nobody to tell.
func reply(w io.Writer, v any) { _ = json.NewEncoder(w).Encode(v) }

// small reserves the room for its connection for a request that moves no blob.
func (b *Broker) small(serve func(w http.ResponseWriter, r *http.Request) error) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		held, err := b.share.reserve(r.Context(), min(overhead, b.share.part()))
		if err != nil {
			return err
		}

		if held == nil { // another worker has come in between
			return errCrowded()
		}

		defer held.release()

		return serve(w, r)
	}
}

// errCrowded is for a worker whose part of the room has become too small for any
// work: only a flood of workers makes it so.
func errCrowded() error {
	return engine.Errorf(engine.CodeStoreUnavailable, "too many workers share the memory for blobs on their way")
}

func (b *Broker) remove(_ http.ResponseWriter, r *http.Request) error {
	return b.storage.DeleteBlob(r.Context(), blob.ID(r.PathValue("id"))) // it goes onto the wire as it is
}

func (b *Broker) metadata(w http.ResponseWriter, r *http.Request) error {
	m, err := b.storage.GetMetadata(r.Context(), blob.ID(r.PathValue("id")))
	if err != nil {
		return err // it goes onto the wire as it is
	}

	m.BlobID = blob.ID(r.PathValue("id"))
	reply(w, m)

	return nil
}

func (b *Broker) capacity(w http.ResponseWriter, r *http.Request) error {
	c, err := b.storage.GetCapacity(r.Context())
	if err != nil {
		return err // it goes onto the wire as it is
	}

	reply(w, c)

	return nil
}

// list hands on a page at a time. The next one is asked for when the worker has
// taken this one, or most of it.
func (b *Broker) list(w http.ResponseWriter, r *http.Request) error {
	held, err := b.share.reserve(r.Context(), min(pageWeight, b.share.part()))
	if err != nil {
		return err
	}

	if held == nil {
		return errCrowded()
	}

	defer held.release()

	w.Header().Set("Content-Type", "application/x-ndjson")

	count := 0
	lines := json.NewEncoder(w)
	prefix := blob.ID(r.URL.Query().Get(queryPrefix))

	for after := ""; ; {
		p, err := listPage(r.Context(), b.storage, prefix, after)
		if err != nil {
			return endListing(w, count, err)
		}

		b.letWrite(w)

		for i := range p.blobs {
			if err := lines.Encode(listLine{Blob: &p.blobs[i]}); err != nil {
				return nil // When the worker is gone there is nobody to tell.
			}
		}

		count += len(p.blobs)

		if after = p.next; after == "" {
			reply(w, listLine{Count: &count})

			return nil
		}
	}
}

// endListing ends one in its middle.
func endListing(w io.Writer, count int, err error) error {
	if count == 0 {
		return err // it goes onto the wire as it is
	}

	f := toFailure(err)
	reply(w, listLine{Failure: &f})

	return nil
}

// letWrite bounds how long the worker may take to read. Where there is no
// connection, there is none to wait for.
func (b *Broker) letWrite(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(b.timeout))
}

// letRead bounds how long the worker may take to write.
func (b *Broker) letRead(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(b.timeout))
}
