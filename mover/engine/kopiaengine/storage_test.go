package kopiaengine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo/blob"
)

// testStorage is a storage that can be made to fail, and that counts.
type testStorage struct {
	blob.Storage

	mu       sync.Mutex
	sticky   error
	verify   func(n int32) error
	onPut    func(ctx context.Context, id blob.ID) error
	verified atomic.Int32
	puts     atomic.Int32
	lists    atomic.Int32
}

// errLoseWrite from onPut makes the storage acknowledge a write and forget it.
var errLoseWrite = errors.New("lose the write")

// Err returns the failure that the storage remembers.
func (s *testStorage) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.sticky
}

func (s *testStorage) stick(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.sticky = err

	return err
}

// VerifyWritten returns what the test wants.
func (s *testStorage) VerifyWritten(context.Context) error {
	n := s.verified.Add(1)
	if s.verify == nil {
		return nil
	}

	return s.verify(n)
}

// PutBlob asks onPut first.
func (s *testStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	s.puts.Add(1)

	if s.onPut != nil {
		if err := s.onPut(ctx, id); errors.Is(err, errLoseWrite) {
			return nil
		} else if err != nil {
			return err
		}
	}

	return s.Storage.PutBlob(ctx, id, data, opts)
}

// ListBlobs counts the listings of packs.
func (s *testStorage) ListBlobs(ctx context.Context, prefix blob.ID, cb func(blob.Metadata) error) error {
	if prefix == "p" || prefix == "q" {
		s.lists.Add(1)
	}

	return s.Storage.ListBlobs(ctx, prefix, cb)
}

// isData reports whether a blob holds the content of files.
func isData(id blob.ID) bool { return strings.HasPrefix(string(id), "p") }
