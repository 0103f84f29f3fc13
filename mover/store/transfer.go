package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// unknownWeight is up to which size, in bytes, a blob that is read in full is
	// read without asking for its size first.
	unknownWeight = 8 << 20
	// pieceSize is how much of a blob is read at a time, in bytes, when there is no room for all of it.
	pieceSize = 8 << 20
)

func (b *Broker) get(w http.ResponseWriter, r *http.Request) error {
	offset, length, err := rangeOf(r)
	if err != nil {
		return err
	}

	id := blob.ID(r.PathValue("id"))
	if err := checkBlobID(id); err != nil {
		return err
	}

	if length < 0 {
		done, err := b.getUnknown(w, r, id)
		if done || err != nil {
			return err
		}

		// What is larger than was expected says how large it is, and then is like others.
		m, err := b.storage.GetMetadata(r.Context(), id)
		if err != nil {
			return err // it goes onto the wire as it is
		}

		if offset, length = 0, m.Length; length > MaxBlobSize {
			return engine.Errorf(engine.CodeInvalidRequest, "blob %s of %d bytes is not passed on", id, length)
		}
	}

	held, err := b.share.reserve(r.Context(), length+overhead)
	if err != nil {
		return err
	}

	if held == nil {
		return b.getPieces(w, r, id, offset, length)
	}

	defer held.release()

	content, err := b.read(r.Context(), id, offset, length)
	if err != nil {
		return err
	}

	_ = b.answer(w, content, length) // when the worker is gone there is nobody to tell

	return nil
}

// getUnknown reads a blob in full, unless it is larger than expected.
func (b *Broker) getUnknown(w http.ResponseWriter, r *http.Request, id blob.ID) (done bool, err error) {
	weight := min(unknownWeight, b.share.part())

	held, err := b.share.reserve(r.Context(), weight)
	if err != nil {
		return false, err
	}

	if held == nil {
		return false, nil
	}

	defer held.release()

	out := Buffer{limit: max(weight-overhead, 1)}

	err = b.storage.GetBlob(r.Context(), id, 0, -1, &out)
	if errors.Is(err, errBeyond) {
		return false, nil
	}

	if err != nil {
		return false, err
	}

	held.shrink(int64(cap(out.content)) + overhead)
	_ = b.answer(w, out.Bytes(), int64(out.Length())) // as in get

	return true, nil
}

// read reads a range of known length, and never more than that, whatever the store sends.
func (b *Broker) read(ctx context.Context, id blob.ID, offset, length int64) ([]byte, error) {
	out := Buffer{limit: max(length, 1)}

	err := b.storage.GetBlob(ctx, id, offset, length, &out)
	if errors.Is(err, errBeyond) {
		return nil, engine.Errorf(engine.CodeStoreUnavailable, "the store gave more of blob %s than the %d bytes from %d that it was asked for", id, length, offset)
	}

	return out.Bytes(), err
}

// getPieces reads a blob that there is no room for, piece by piece.
func (b *Broker) getPieces(w http.ResponseWriter, r *http.Request, id blob.ID, offset, length int64) error {
	for at := int64(0); at < length; {
		n, err := b.getPiece(w, r, id, offset+at, length-at)

		switch {
		case err == nil:
			at += n
		case at == 0:
			w.Header().Del("Content-Length")

			return err // it goes onto the wire as it is
		default:
			panic(http.ErrAbortHandler) // the worker sees that the answer breaks off
		}
	}

	return nil
}

// getPiece reads the first piece of what is left and hands it on.
func (b *Broker) getPiece(w http.ResponseWriter, r *http.Request, id blob.ID, offset, left int64) (int64, error) {
	weight := min(pieceSize+overhead, b.share.part())
	n := min(left, max(weight-overhead, weight/2))

	held, err := b.share.reserve(r.Context(), weight)
	if err != nil {
		return 0, err
	}

	if held == nil {
		return 0, errCrowded()
	}

	defer held.release()

	content, err := b.read(r.Context(), id, offset, n)
	if err != nil {
		return 0, err // it goes onto the wire as it is
	}

	return n, b.answer(w, content, left)
}

// answer hands on content of an answer of which so much is left. A worker that does
// not read must not keep its room for ever.
func (b *Broker) answer(w http.ResponseWriter, content []byte, left int64) error {
	b.letWrite(w)

	if w.Header().Get("Content-Length") == "" {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
	}

	if _, err := w.Write(content); err != nil { //nolint:gosec // It is no page, and no browser reads it.
		return engine.Errorf(engine.CodeCanceled, "the worker does not read: %w", err)
	}

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

	held, err := b.share.reserve(r.Context(), size+overhead)
	if err != nil {
		return err
	}

	if held == nil {
		return b.putSpooled(w, r, id, size)
	}

	defer held.release()

	b.letRead(w)

	content := make([]byte, size)
	if _, err := io.ReadFull(r.Body, content); err != nil {
		return errHalfABlob(id, size, err)
	}

	return b.store(w, r, id, Memory(content))
}

func errHalfABlob(id blob.ID, size int64, err error) error {
	return engine.Errorf(engine.CodeInvalidRequest, "read %d bytes of blob %s from the worker: %w", size, id, err)
}

// putSpooled takes a blob that there is no room for by way of the disk, one at a time.
func (b *Broker) putSpooled(w http.ResponseWriter, r *http.Request, id blob.ID, size int64) error {
	select {
	case b.spooling <- struct{}{}:
		defer func() { <-b.spooling }()
	case <-r.Context().Done():
		return canceled(r.Context(), "wait for the broker's disk")
	}

	return b.small(func(w http.ResponseWriter, r *http.Request) error {
		b.letRead(w)

		content, err := spool(b.spoolDir, r.Body, size)
		if ofDisk := new(fs.PathError); errors.As(err, &ofDisk) {
			return engine.Errorf(engine.CodeInternal, "put blob %s: %w; the daemon's cache folder must have room for it", id, err)
		}

		if err != nil {
			return errHalfABlob(id, size, err)
		}

		defer content.close()

		return b.store(w, r, id, content)
	})(w, r)
}

// store hands a blob to the store.
func (b *Broker) store(w http.ResponseWriter, r *http.Request, id blob.ID, content blob.Bytes) error {
	var (
		o       blob.PutOptions
		modTime time.Time
	)

	wanted := r.URL.Query().Has(queryModTime)
	if wanted {
		o.GetModTime = &modTime
	}

	if err := b.storage.PutBlob(r.Context(), id, content, o); err != nil {
		return err // it goes onto the wire as it is
	}

	if wanted {
		reply(w, written{ModTime: modTime})
	}

	return nil
}
