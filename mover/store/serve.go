package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// The windows are the largest that net/http lets us have. Frames of 256 KiB fit a core's cache and cost few headers
	// and wake-ups; they are a choice, and no measured optimum: what is fastest differs with the machine and its load.
	frameSize        = 256 << 10
	streamWindow     = 4<<20 - 1
	connectionWindow = 4<<20 - 1
	maxStreams       = 256
	socketBuffer     = 4 << 20
	// maxHeader is what a request's headers may take, in bytes; an honest one has some 300.
	maxHeader = 8 << 10
)

// SocketPair makes the two ends of a connection between a Broker and a worker.
// The caller closes both; the worker's end is inherited by the worker process.
func SocketPair() (broker, worker *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}

	for _, fd := range fds {
		// More than the kernel's default where it lets us; less is only slower.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	}

	return os.NewFile(uintptr(fds[0]), "store-broker"), os.NewFile(uintptr(fds[1]), "store-worker"), nil
}

// Serve serves the worker at the other end of the socket until it closes the
// connection or ctx is done; then all requests have ended or been canceled. It
// takes over f. It returns nil when the worker closed the connection.
func (b *Broker) Serve(ctx context.Context, f *os.File) error {
	conn, err := net.FileConn(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}

	if err != nil {
		return fmt.Errorf("take over the worker's socket: %w", err)
	}

	return b.ServeConn(ctx, conn)
}

// ServeConn is Serve for a connection. It takes over conn.
func (b *Broker) ServeConn(ctx context.Context, conn net.Conn) error {
	once := newOneConn(conn)

	var protocols http.Protocols

	protocols.SetUnencryptedHTTP2(true)

	// The worker is sure of its part from the start, and what it sends must not fill
	// the daemon's memory by its headers, nor the daemon's log.
	b.share.enter()
	defer b.share.leave()

	server := &http.Server{
		Handler: b, Protocols: &protocols, ReadHeaderTimeout: time.Minute, HTTP2: http2Config(),
		MaxHeaderBytes: maxHeader, ErrorLog: log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}

	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()

	err := server.Serve(once)
	// The handlers' contexts end with their connection.
	_ = server.Close()

	if ctx.Err() != nil {
		return canceled(ctx, "serve the worker's store")
	}

	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}

	return fmt.Errorf("serve the worker's store: %w", err)
}

func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReadFrameSize:              frameSize,
		MaxReceiveBufferPerConnection: connectionWindow,
		MaxReceiveBufferPerStream:     streamWindow,
	}
}

// oneConn is a listener that accepts one connection, and is closed when that is.
type oneConn struct {
	conn   net.Conn
	given  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newOneConn(conn net.Conn) *oneConn {
	l := &oneConn{conn: conn, given: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.given <- &closingConn{Conn: conn, closed: l.Close}

	return l
}

// Accept returns the connection, then blocks until it is closed.
func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.given:
		return c, nil
	default:
	}

	<-l.closed

	return nil, net.ErrClosed
}

// Close closes the connection too: without it there is nothing to serve.
func (l *oneConn) Close() error {
	var err error

	l.once.Do(func() {
		close(l.closed)
		err = l.conn.Close()
	})

	return err // a net.Listener gives the connection's error
}

// Addr of the connection.
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

type closingConn struct {
	net.Conn

	closed func() error
}

// Close ends the listener too.
func (c *closingConn) Close() error { return c.closed() }
