package store

import (
	"bytes"
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

func (m Memory) whole() []byte { return m }

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

// wholeBytes gives the content of data in one piece, without passing what
// watches or limits the reading of it: for checksums.
func wholeBytes(data blob.Bytes) ([]byte, error) {
	if m, ok := data.(interface{ whole() []byte }); ok {
		return m.whole(), nil
	}

	b := bytes.NewBuffer(make([]byte, 0, data.Length()))
	if _, err := data.WriteTo(b); err != nil {
		return nil, fmt.Errorf("read %d bytes of a blob's content: %w", data.Length(), err)
	}

	return b.Bytes(), nil
}

// Buffer collects a blob's content in one piece. It is a kopia
// blob.OutputBuffer. The zero Buffer is ready for use.
type Buffer struct{ content []byte }

// Write appends p.
func (b *Buffer) Write(p []byte) (int, error) {
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

	larger := make([]byte, len(b.content), len(b.content)+n)
	copy(larger, b.content)
	b.content = larger
}

// Reset forgets the content.
func (b *Buffer) Reset() { b.content = b.content[:0] }

// Length of the content, in bytes.
func (b *Buffer) Length() int { return len(b.content) }

// Bytes gives the content; it is valid until the next use of b.
func (b *Buffer) Bytes() []byte { return b.content }

// hand gives the content of b to to, without a copy where to is a Buffer too; b is empty afterwards.
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
