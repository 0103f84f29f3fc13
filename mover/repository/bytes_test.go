package repository_test

import (
	"bytes"
	"io"
)

// bytesOf implements blob.Bytes.
type bytesOf string

func (b bytesOf) Length() int { return len(b) }

func (b bytesOf) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, string(b))

	return int64(n), err
}

func (b bytesOf) Reader() io.ReadSeekCloser { return closer{bytes.NewReader([]byte(b))} }

type closer struct{ *bytes.Reader }

func (closer) Close() error { return nil }
