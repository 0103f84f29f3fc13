package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// HTTPStorage serves a handler as a Storage: HTTP/2 without TLS, over the one
// connection and no other.
func HTTPStorage(h http.Handler) Storage { return httpStorage{handler: h} }

type httpStorage struct{ handler http.Handler }

// Serve answers until conn is closed or ctx is done.
func (s httpStorage) Serve(ctx context.Context, conn net.Conn) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)

	server := &http.Server{
		Handler:           s.handler,
		Protocols:         protocols,
		ReadHeaderTimeout: time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}

	listener := newSingle(conn)

	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()

	if err := server.Serve(listener); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the storage: %w", err)
	}

	return nil
}

// single is a listener that has one connection, and ends when that is closed.
type single struct {
	conn   net.Conn
	given  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newSingle(conn net.Conn) *single {
	s := &single{given: make(chan net.Conn, 1), closed: make(chan struct{})}
	s.conn = &watched{Conn: conn, listener: s}
	s.given <- s.conn

	return s
}

// Accept gives the connection, and then waits for its end.
func (s *single) Accept() (net.Conn, error) {
	select {
	case c := <-s.given:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the waiting Accept.
func (s *single) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// Addr is the connection's own.
func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }

// watched tells its listener when it is closed.
type watched struct {
	net.Conn

	listener *single
}

// Close closes the connection and the listener.
func (w *watched) Close() error {
	_ = w.listener.Close()
	return w.Conn.Close()
}
