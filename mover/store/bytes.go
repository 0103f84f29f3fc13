package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/kopia/kopia/repo/blob"
)

// Memory is a blob's content in one piece. It is a kopia blob.Bytes.
type Memory []byte

// Length of the content, in bytes.
func (m Memory) Length() int { return len(m) }

// WriteTo writes the content to w.
func (m Memory) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(m)

	return int64(n), err // the writer's own error, as io.WriterTo asks
}

// Reader reads the content from its start.
func (m Memory) Reader() io.ReadSeekCloser { return memoryReader{bytes.NewReader(m)} }

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

// unwatched returns data without what watches or limits the reading of it: for checksums.
func unwatched(data blob.Bytes) blob.Bytes {
	for {
		b, ok := data.(*observedBytes)
		if !ok {
			return data
		}

		data = b.Bytes
	}
}

// errBeyond is for a blob that is larger than what it is read into may become.
var errBeyond = errors.New("the blob is larger than there is room for")

// Buffer collects a blob's content in one piece. It is a kopia
// blob.OutputBuffer. The zero Buffer is ready for use.
type Buffer struct {
	content []byte
	// limit is how long the content may become, in bytes; 0 is without a bound.
	limit int64
}

// like makes an empty Buffer that may become as long as out may, where that has a bound.
func like(out blob.OutputBuffer) *Buffer {
	if b, ok := out.(*Buffer); ok {
		return &Buffer{limit: b.limit}
	}

	return new(Buffer)
}

// makeRoom prepares a Buffer for the length of the content; errBeyond if that is too long.
func makeRoom(out blob.OutputBuffer, n int64) error {
	b, ok := out.(interface{ expect(n int64) error })
	if !ok {
		return nil
	}

	return b.expect(n)
}

func (b *Buffer) expect(n int64) error {
	if b.limit > 0 && int64(len(b.content))+n > b.limit {
		return errBeyond
	}

	if n > 0 && n <= maxPreallocate {
		b.grow(int(n) + 1) // one more, to see the end without growing
	}

	return nil
}

// Write appends p.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.limit > 0 && int64(len(b.content))+int64(len(p)) > b.limit {
		return 0, errBeyond
	}

	b.content = append(b.content, p...)

	return len(p), nil
}

// ReadFrom appends all of r, without a copy in between.
func (b *Buffer) ReadFrom(r io.Reader) (int64, error) {
	var total int64

	for {
		if len(b.content) == cap(b.content) {
			b.grow(max(minRead, cap(b.content)))
		}

		n, err := r.Read(b.content[len(b.content):cap(b.content)])
		b.content = b.content[:len(b.content)+n]
		total += int64(n)

		if b.limit > 0 && int64(len(b.content)) > b.limit {
			return total, errBeyond
		}

		if err == io.EOF { // io.Reader gives io.EOF itself
			return total, nil
		}

		if err != nil {
			return total, err // the reader's own error, as io.ReaderFrom asks
		}
	}
}

const minRead = 4 << 10

// grow makes room for n bytes more.
func (b *Buffer) grow(n int) {
	if cap(b.content)-len(b.content) >= n {
		return
	}

	size := len(b.content) + n
	if b.limit > 0 {
		size = max(len(b.content)+1, min(size, int(b.limit)+1))
	}

	larger := make([]byte, len(b.content), size)
	copy(larger, b.content)
	b.content = larger
}

// Reset forgets the content.
func (b *Buffer) Reset() { b.content = b.content[:0] }

// Length of the content, in bytes.
func (b *Buffer) Length() int { return len(b.content) }

// Bytes returns the content; it is valid until the next use of b.
func (b *Buffer) Bytes() []byte { return b.content }

// hand moves the content of b to to, without a copy where to is a Buffer too; b is empty afterwards.
func (b *Buffer) hand(to blob.OutputBuffer) error {
	if t, ok := to.(*Buffer); ok {
		t.content, b.content = b.content, nil

		return nil
	}

	to.Reset()

	if _, err := to.Write(b.content); err != nil {
		return fmt.Errorf("hand on %d bytes of a blob: %w", len(b.content), err)
	}

	return nil
}
