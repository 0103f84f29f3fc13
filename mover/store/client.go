package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

// Client is the worker's end: the storage of one repository, as kopia wants it,
// over the socket to the Broker. It holds no credentials and needs no network.
//
// It is safe for concurrent use. A request ends at once when its context does.
// It never repeats: the broker's side has done that.
type Client struct {
	blob.DefaultProviderImplementation

	conn     *http.ClientConn
	readOnly bool
	ledger   ledger

	mu     sync.Mutex
	sticky error
	closed bool
}

// ClientOptions say how a worker uses its store.
type ClientOptions struct {
	// ReadOnly refuses writes and deletes, as the broker does too.
	ReadOnly bool
}

// NewClient makes a Client of the worker's end of the socket, which it takes
// over. It makes no system call but on that descriptor.
func NewClient(f *os.File, o ClientOptions) (*Client, error) {
	conn, err := net.FileConn(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}

	if err != nil {
		return nil, engine.Errorf(engine.CodeInternal, "take over the store's socket: %w", err)
	}

	return NewClientOn(conn, o)
}

// NewClientOn is NewClient for a connection, which it takes over.
func NewClientOn(conn net.Conn, o ClientOptions) (*Client, error) {
	var protocols http.Protocols

	protocols.SetUnencryptedHTTP2(true)

	t := &http.Transport{
		Protocols: &protocols, HTTP2: http2Config(), DisableCompression: true,
		DialContext:           func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		ExpectContinueTimeout: admissionTimeout,
	}

	// One connection and never another: a pool would dial again for each request
	// that comes before the first one is answered.
	single, err := t.NewClientConn(context.Background(), "http", "broker:80")
	if err != nil {
		_ = conn.Close()

		return nil, engine.Errorf(engine.CodeInternal, "begin to speak on the store's socket: %w", err)
	}

	return &Client{conn: single, readOnly: o.ReadOnly, ledger: newLedger()}, nil
}

// admissionTimeout is longer than any job: a blob is sent only when the broker
// has room for it. The connection's window is shared: if blobs were sent before
// they are read, those that wait for room would keep those that have it from arriving.
const admissionTimeout = 1000 * time.Hour

// Err returns the first failure of the store itself: one after which a job can't
// succeed, whatever kopia made of it. Blobs that are not there, refused writes
// and ends of contexts are none. From then on every request fails with it.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()

	return c.sticky
}

// note keeps the first failure of the store.
func (c *Client) note(err error) error {
	if err == nil || expected(err) {
		return err
	}

	switch engine.CodeOf(err) {
	case engine.CodeStoreUnavailable, engine.CodeStoreStalled, engine.CodeStoreLostWrite, engine.CodeCredentialsInvalid,
		engine.CodeStoreFull, engine.CodeClockSkewed:
	default:
		return err
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if c.sticky == nil && !c.closed {
		c.sticky = err
	}

	return err
}

// call sends one request and gives its answer, whose body the caller closes.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, body blob.Bytes) (*http.Response, error) {
	if err := c.Err(); err != nil {
		return nil, err
	}

	u := url.URL{Scheme: "http", Host: "broker", Path: path, RawQuery: q.Encode()}

	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, engine.Errorf(engine.CodeInternal, "%s %s: %w", method, path, err)
	}

	if body != nil && body.Length() > 0 {
		r.Body = body.Reader()
		r.ContentLength = int64(body.Length())
		r.Header.Set("Expect", "100-continue")
	}

	answer, err := c.conn.RoundTrip(r) // closed below or by the caller
	if err != nil {
		return nil, c.broken(ctx, method+" "+path, err)
	}

	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}

	defer answer.Body.Close() //nolint:errcheck // what counts was read

	var f failure
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&f); err != nil { // far more than any message
		return nil, c.broken(ctx, method+" "+path, err)
	}

	return nil, c.note(f.err())
}

// broken is the error for a connection that failed.
func (c *Client) broken(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return canceled(ctx, what)
	}

	return c.note(engine.Errorf(engine.CodeStoreUnavailable, "%s: connection to the broker: %w", what, err))
}

// done reads an answer that has no content.
func done(answer *http.Response, err error) error {
	if err != nil {
		return err
	}

	return answer.Body.Close() // an empty body has nothing to fail with
}

// GetBlob reads a blob, or a range of it when length is not negative.
func (c *Client) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	out.Reset()

	if err := checkBlobID(id); err != nil {
		return err
	}

	answer, err := c.call(ctx, http.MethodGet, pathBlobs+"/"+string(id), url.Values{
		queryOffset: {strconv.FormatInt(offset, 10)}, queryLength: {strconv.FormatInt(length, 10)},
	}, nil)
	if err != nil {
		return err
	}

	defer answer.Body.Close() //nolint:errcheck // what counts was read

	if b, ok := out.(*Buffer); ok && answer.ContentLength <= maxPreallocate {
		b.grow(int(answer.ContentLength) + 1)
	}

	if _, err := io.CopyBuffer(out, answer.Body, make([]byte, min(max(answer.ContentLength, minRead), copyChunk))); err != nil {
		return c.broken(ctx, "get blob "+string(id), err)
	}

	return blob.EnsureLengthExactly(out.Length(), length) // kopia's own sentinel
}

// copyChunk is how much of a blob is copied at a time.
const copyChunk = 256 << 10

// GetMetadata returns a blob's length and time.
func (c *Client) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	var m blob.Metadata

	if err := checkBlobID(id); err != nil {
		return m, err
	}

	return m, c.ask(ctx, pathMetadata+"/"+string(id), &m)
}

// GetCapacity returns the size of the store's file system; blob.ErrNotAVolume for an object store.
func (c *Client) GetCapacity(ctx context.Context) (blob.Capacity, error) {
	var answer blob.Capacity

	return answer, c.ask(ctx, pathCapacity, &answer)
}

func (c *Client) ask(ctx context.Context, path string, into any) error {
	answer, err := c.call(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}

	defer answer.Body.Close() //nolint:errcheck // what counts was read

	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return c.broken(ctx, "get "+path, err)
	}

	return nil
}

// PutBlob writes a blob and remembers it for VerifyWritten.
func (c *Client) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	switch {
	case o.HasRetentionOptions():
		return fmt.Errorf("retention: %w", blob.ErrUnsupportedPutBlobOption)
	case o.DoNotRecreate:
		return fmt.Errorf("do-not-recreate: %w", blob.ErrUnsupportedPutBlobOption)
	case !o.SetModTime.IsZero():
		return blob.ErrSetTimeUnsupported
	}

	if err := checkBlobID(id); err != nil {
		return err
	}

	q := url.Values{}
	if o.GetModTime != nil {
		q.Set(queryModTime, "1")
	}

	answer, err := c.call(ctx, http.MethodPut, pathBlobs+"/"+string(id), q, data)
	if err != nil {
		return err
	}

	defer answer.Body.Close() //nolint:errcheck // what counts was read

	if o.GetModTime != nil {
		var w written
		if err := json.NewDecoder(answer.Body).Decode(&w); err != nil {
			return c.broken(ctx, "put blob "+string(id), err)
		}

		*o.GetModTime = w.ModTime
	}

	c.ledger.wrote(id, int64(data.Length()))

	return nil
}

// DeleteBlob removes a blob; one that is not there is no error.
func (c *Client) DeleteBlob(ctx context.Context, id blob.ID) error {
	if err := checkBlobID(id); err != nil {
		return err
	}

	if err := done(c.call(ctx, http.MethodDelete, pathBlobs+"/"+string(id), nil, nil)); err != nil {
		return err
	}

	c.ledger.removed(id)

	return nil
}

// ListBlobs lists the blobs whose IDs begin with prefix, in no certain order,
// when all of them have arrived: callback may use the Client itself, which an
// answer that is read while it works would block. A listing that broke off is an error.
func (c *Client) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	found, err := c.list(ctx, prefix)
	if err != nil {
		return err
	}

	for _, m := range found {
		if err := callback(m); err != nil {
			return err
		}
	}

	return nil
}

func (c *Client) list(ctx context.Context, prefix blob.ID) ([]blob.Metadata, error) {
	what := "list blobs " + string(prefix) + "*"

	answer, err := c.call(ctx, http.MethodGet, pathBlobs, url.Values{queryPrefix: {string(prefix)}}, nil)
	if err != nil {
		return nil, err
	}

	defer answer.Body.Close() //nolint:errcheck // what counts was read

	var found []blob.Metadata

	for lines := json.NewDecoder(answer.Body); ; {
		var l listLine
		if err := lines.Decode(&l); err != nil {
			return nil, c.broken(ctx, what, err)
		}

		switch {
		case l.Failure != nil:
			return nil, c.note(l.Failure.err())
		case l.Blob != nil:
			found = append(found, *l.Blob)
		case l.Count == nil || *l.Count != len(found):
			return nil, c.broken(ctx, what, io.ErrUnexpectedEOF)
		default:
			return found, nil
		}
	}
}

// ConnectionInfo names the storage for kopia; it holds nothing to connect by. See Carry.
func (c *Client) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &connectionConfig{}}
}

// DisplayName names the storage for people.
func (c *Client) DisplayName() string { return "Estiba's store broker" }

// IsReadOnly reports whether writes are refused.
func (c *Client) IsReadOnly() bool { return c.readOnly }

// Close ends the connection. Requests under way fail.
func (c *Client) Close(context.Context) error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()

	if closed {
		return nil
	}

	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the connection to the broker: %w", err)
	}

	return nil
}
