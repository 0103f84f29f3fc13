package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// counted counts what is read from a storage.
type counted struct {
	blob.Storage

	gets, bytes atomic.Int64
	fail        func() error
}

func (c *counted) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	c.gets.Add(1)
	c.bytes.Add(length)

	if c.fail != nil {
		if err := c.fail(); err != nil {
			return err
		}
	}

	return c.Storage.GetBlob(ctx, id, offset, length, out)
}

// held blobs of a test: packs of an odd size with random content.
func packs(t *testing.T, n int) (*counted, map[blob.ID][]byte) {
	t.Helper()

	st, err := filesystem.New(t.Context(), &filesystem.Options{Path: t.TempDir()}, true)
	require.NoError(t, err)

	all := map[blob.ID][]byte{}
	src := rand.NewChaCha8([32]byte{3})

	for i := range n {
		data := make([]byte, 2*segment+12345)
		_, _ = src.Read(data)

		id := blob.ID("p" + strings.Repeat(string(rune('a'+i%26)), 1+i/26))
		all[id] = data

		require.NoError(t, st.PutBlob(t.Context(), id, plain(data), blob.PutOptions{}))
	}

	return &counted{Storage: st}, all
}

// plain implements blob.Bytes.
type plain []byte

func (b plain) Length() int { return len(b) }

func (b plain) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)

	return int64(n), err
}

func (b plain) Reader() io.ReadSeekCloser { return noClose{bytes.NewReader(b)} }

type noClose struct{ *bytes.Reader }

func (noClose) Close() error { return nil }

func TestReadingAheadGivesTheSameBytes(t *testing.T) {
	st, all := packs(t, 3)
	r := newReadAhead(st)

	var wg sync.WaitGroup

	for worker := range uint64(4) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(worker, 1))

			for range 2000 {
				for id, data := range all {
					offset := random.IntN(len(data) - 1)
					length := 1 + random.IntN(min(len(data)-offset, 100_000))

					var b buffer

					if !assert.NoError(t, r.GetBlob(t.Context(), id, int64(offset), int64(length), &b)) || //nolint:testifylint // require must not end another goroutine than the test's
						!assert.Equal(t, data[offset:offset+length], b.data) {
						return
					}
				}
			}
		})
	}

	wg.Wait()
	assert.LessOrEqual(t, len(r.kept), segments)
}

func TestNeighboursAreFetchedTogether(t *testing.T) {
	st, all := packs(t, 1)
	r := newReadAhead(st)

	for offset := int64(0); offset+4096 <= 2*segment; offset += 4096 {
		var b buffer

		require.NoError(t, r.GetBlob(t.Context(), "pa", offset, 4096, &b))
		require.Equal(t, all["pa"][offset:offset+4096], b.data)
	}

	assert.EqualValues(t, single+2, st.gets.Load())
}

func TestStrayReadsDoNotFetchTheStore(t *testing.T) {
	const piece = 4096

	st, all := packs(t, 60)
	r := newReadAhead(st)
	wanted := int64(0)

	for round := range 40 {
		for id := range all {
			var b buffer

			require.NoError(t, r.GetBlob(t.Context(), id, int64(round)*200_000%(2*segment-piece)/piece*piece, piece, &b))

			wanted += piece
		}
	}

	assert.Less(t, st.bytes.Load(), extravagance*wanted+grace+2*segment)
}

func TestErrorsOfTheStorageAreItsReadersAndNotTheNextOnes(t *testing.T) {
	st, all := packs(t, 1)
	r := newReadAhead(st)
	broken := errors.New("broken")

	var b buffer

	require.ErrorIs(t, r.GetBlob(t.Context(), "pz", 0, 10, &b), blob.ErrBlobNotFound)
	require.Error(t, r.GetBlob(t.Context(), "pa", int64(len(all["pa"]))-5, 10, &b))

	st.fail = func() error { return broken }

	for range single + 2 {
		require.ErrorIs(t, r.GetBlob(t.Context(), "pa", 0, 10, &b), broken)
	}

	st.fail = nil

	require.NoError(t, r.GetBlob(t.Context(), "pa", 0, 10, &b))
	assert.Equal(t, all["pa"][:10], b.data)
}
