package store_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// memoryStorage keeps blobs in memory.
type memoryStorage struct {
	blob.DefaultProviderImplementation

	mu    sync.Mutex
	blobs map[blob.ID]memoryBlob
}

type memoryBlob struct {
	content []byte
	at      time.Time
}

func newMemory() *memoryStorage { return &memoryStorage{blobs: map[blob.ID]memoryBlob{}} }

func (m *memoryStorage) find(id blob.ID) (memoryBlob, error) {
	m.mu.Lock()
	defer m.mu.Unlock()

	b, ok := m.blobs[id]
	if !ok {
		return b, fmt.Errorf("blob %s: %w", id, blob.ErrBlobNotFound)
	}

	return b, nil
}

func (m *memoryStorage) GetBlob(_ context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	out.Reset()

	b, err := m.find(id)
	if err != nil {
		return err
	}

	part := b.content

	if length >= 0 {
		if offset < 0 || offset+length > int64(len(part)) {
			return blob.ErrInvalidRange
		}

		part = part[offset : offset+length]
	}

	_, err = out.Write(part)

	return err
}

func (m *memoryStorage) GetMetadata(_ context.Context, id blob.ID) (blob.Metadata, error) {
	b, err := m.find(id)
	if err != nil {
		return blob.Metadata{}, err
	}

	return blob.Metadata{BlobID: id, Length: int64(len(b.content)), Timestamp: b.at}, nil
}

func (m *memoryStorage) PutBlob(_ context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if o.DoNotRecreate || o.HasRetentionOptions() {
		return blob.ErrUnsupportedPutBlobOption
	}

	if !o.SetModTime.IsZero() {
		return blob.ErrSetTimeUnsupported
	}

	content := make([]byte, data.Length())

	r := data.Reader()
	defer r.Close()

	if _, err := io.ReadFull(r, content); err != nil {
		return err
	}

	now := time.Now()

	m.mu.Lock()
	defer m.mu.Unlock()

	m.blobs[id] = memoryBlob{content: content, at: now}

	if o.GetModTime != nil {
		*o.GetModTime = now
	}

	return nil
}

func (m *memoryStorage) DeleteBlob(_ context.Context, id blob.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	delete(m.blobs, id)

	return nil
}

func (m *memoryStorage) ListBlobs(_ context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	m.mu.Lock()

	found := make([]blob.Metadata, 0, len(m.blobs))

	for id, b := range m.blobs {
		if strings.HasPrefix(string(id), string(prefix)) {
			found = append(found, blob.Metadata{BlobID: id, Length: int64(len(b.content)), Timestamp: b.at})
		}
	}

	m.mu.Unlock()

	for _, md := range found {
		if err := callback(md); err != nil {
			return err
		}
	}

	return nil
}

func (m *memoryStorage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: "memory"}
}

func (m *memoryStorage) DisplayName() string { return "memory" }
