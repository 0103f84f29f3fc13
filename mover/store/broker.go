package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
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
	// unknownWeight is what a blob that is read in full is taken for until it was read: as large as a pack.
	unknownWeight = 32 << 20
)

// BrokerOptions say how a Broker serves.
type BrokerOptions struct {
	// ReadOnly refuses writes and deletes: for restores.
	ReadOnly bool
	// Room bounds the bytes of blobs held at a time, of all brokers that share
	// it; nil means one of this broker alone, of DefaultMemory.
	Room *Room
	// WorkerTimeout is how long the worker may take to send or take one blob, and
	// so hold a part of the Room; 0 means DefaultWorkerTimeout.
	WorkerTimeout time.Duration
}

// Broker serves the storage of one repository to one worker. The storage must
// be confined to that repository already, as by Open. The worker is not
// trusted: a Broker checks all that it says, and knows nothing but blobs.
type Broker struct {
	storage blob.Storage
	room    *Room
	timeout time.Duration
	mux     *http.ServeMux
}

// NewBroker makes a Broker for st. It does not close st.
func NewBroker(st blob.Storage, o BrokerOptions) *Broker {
	if o.ReadOnly {
		st = readOnly{st}
	}

	if o.Room == nil {
		o.Room = NewRoom(DefaultMemory)
	}

	if o.WorkerTimeout <= 0 {
		o.WorkerTimeout = DefaultWorkerTimeout
	}

	b := &Broker{storage: &checked{st}, room: o.Room, timeout: o.WorkerTimeout, mux: http.NewServeMux()}

	b.handle("GET "+pathBlobs+"/{id}", b.get)
	b.handle("PUT "+pathBlobs+"/{id}", b.put)
	b.handle("DELETE "+pathBlobs+"/{id}", b.remove)
	b.handle("GET "+pathMetadata+"/{id}", b.metadata)
	b.handle("GET "+pathBlobs, b.list)
	b.handle("GET "+pathCapacity, b.capacity)

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

func (b *Broker) get(w http.ResponseWriter, r *http.Request) error {
	offset, length, err := rangeOf(r)
	if err != nil {
		return err
	}

	weight := length
	if weight < 0 {
		weight = unknownWeight
	}

	held, err := b.room.reserve(r.Context(), weight)
	if err != nil {
		return err
	}

	defer held.release()

	var out Buffer
	if err := b.storage.GetBlob(r.Context(), blob.ID(r.PathValue("id")), offset, length, &out); err != nil {
		return err // it goes onto the wire as it is
	}

	held.resize(int64(out.Length()))

	// A worker that does not read must not keep the others from their part. Where
	// there is no connection, there is none to wait for.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(b.timeout))

	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(out.Length()))
	_, _ = w.Write(out.Bytes()) // when the worker is gone there is nobody to tell

	return nil
}

func rangeOf(r *http.Request) (offset, length int64, err error) {
	q := r.URL.Query()

	offset, err = strconv.ParseInt(q.Get(queryOffset), 10, 64)
	if err == nil {
		length, err = strconv.ParseInt(q.Get(queryLength), 10, 64)
	}

	if err != nil {
		return 0, 0, engine.Errorf(engine.CodeInvalidRequest, "range of blob: %w", err)
	}

	if offset < 0 || length > MaxBlobSize || offset > (1<<62) {
		return 0, 0, fmt.Errorf("range %d+%d: %w", offset, length, blob.ErrInvalidRange)
	}

	return offset, length, nil
}

func (b *Broker) put(w http.ResponseWriter, r *http.Request) error {
	size := r.ContentLength
	if size < 0 || size > MaxBlobSize {
		return engine.Errorf(engine.CodeInvalidRequest, "a blob of %d bytes is not taken", size)
	}

	// Checked here already, so that nothing is read for what is refused.
	id := blob.ID(r.PathValue("id"))
	if err := checkBlobID(id); err != nil {
		return err
	}

	if b.storage.IsReadOnly() {
		return refuseWrite("put", id)
	}

	held, err := b.room.reserve(r.Context(), size)
	if err != nil {
		return err
	}

	defer held.release()

	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(b.timeout)) // as in get

	content := make([]byte, size)
	if _, err := io.ReadFull(r.Body, content); err != nil {
		return engine.Errorf(engine.CodeInvalidRequest, "read %d bytes of blob %s from the worker: %w", size, id, err)
	}

	var (
		o       blob.PutOptions
		modTime time.Time
	)

	wanted := r.URL.Query().Has(queryModTime)
	if wanted {
		o.GetModTime = &modTime
	}

	if err := b.storage.PutBlob(r.Context(), id, Memory(content), o); err != nil {
		return err // it goes onto the wire as it is
	}

	if wanted {
		reply(w, written{ModTime: modTime})
	}

	return nil
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

// errWorkerGone ends a listing that nobody takes any more.
var errWorkerGone = errors.New("the worker has gone")

func (b *Broker) list(w http.ResponseWriter, r *http.Request) error {
	count := 0
	lines := json.NewEncoder(w)

	w.Header().Set("Content-Type", "application/x-ndjson")

	err := b.storage.ListBlobs(r.Context(), blob.ID(r.URL.Query().Get(queryPrefix)), func(m blob.Metadata) error {
		count++

		if err := lines.Encode(listLine{Blob: &m}); err != nil {
			return errWorkerGone
		}

		return nil
	})

	switch {
	case err == nil:
		reply(w, listLine{Count: &count})
	case errors.Is(err, errWorkerGone):
	case count == 0:
		return err // it goes onto the wire as it is
	default:
		f := toFailure(err)
		reply(w, listLine{Failure: &f})
	}

	return nil
}
