package repository

import (
	"context"
	"crypto/aes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/encryption"
)

const (
	// stretch is how much of a pack is read at a time, in bytes, where its contents are checked.
	stretch = 4 << 20
	// maxCheckedIndex is the size of an index blob, in bytes, up to which it is read back. kopia
	// itself keeps one in memory as a whole where it is new to a machine.
	maxCheckedIndex = 64 << 20
)

// Seals checks what the store has against the keys of the repository. It asks the store
// itself: what a cache on this machine has says nothing of what another one will get.
// Each content is sealed (AES-GCM) with a key of its own, so that what opens is what was written.
type Seals struct {
	st   blob.Storage
	open func(data, iv []byte) error
}

// Seals returns the check of this repository's blobs.
func (r *Repository) Seals() *Seals {
	return newSeals(r.aside, r.ContentReader().ContentFormat().Encryptor())
}

func newSeals(st blob.Storage, e encryption.Encryptor) *Seals {
	return &Seals{st: st, open: opens(e.Decrypt)}
}

// bytesOf is what is known of the buffers that kopia encrypts between; it keeps the names
// of their types for itself.
type bytesOf[B, W any] interface {
	*W
	Append(data []byte)
	Bytes() B
	Close()
}

// opens returns a function that fails where the data are not what was encrypted.
func opens[B, W any, P bytesOf[B, W]](decrypt func(data B, iv []byte, output P) error) func(data, iv []byte) error {
	return func(data, iv []byte) error {
		var in, out W

		i, o := P(&in), P(&out)
		defer i.Close()
		defer o.Close()

		i.Append(data)

		return decrypt(i.Bytes(), iv, o)
	}
}

// Broken reads contents of one pack and returns those that are not there, or not what was
// written. What fails once is read again by itself: a single bad answer is no damage.
// Errors are those of the storage.
func (s *Seals) Broken(ctx context.Context, pack blob.ID, contents []content.Info) ([]content.Info, error) {
	var broken []content.Info

	contents = slices.SortedFunc(slices.Values(contents), func(a, b content.Info) int { return int(a.PackOffset) - int(b.PackOffset) })

	for len(contents) > 0 {
		n := 1
		from, to := span(contents[0])

		for n < len(contents) {
			next, end := span(contents[n])
			if next > to || end-from > stretch {
				break
			}

			to = max(to, end)
			n++
		}

		doubtful, err := s.doubtful(ctx, pack, contents[:n], from, to)
		if err != nil {
			return nil, err
		}

		for _, i := range doubtful {
			from, to := span(i)

			again, err := s.doubtful(ctx, pack, []content.Info{i}, from, to)
			if err != nil {
				return nil, err
			}

			broken = append(broken, again...)
		}

		contents = contents[n:]
	}

	return broken, nil
}

func span(i content.Info) (from, to int64) {
	return int64(i.PackOffset), int64(i.PackOffset) + int64(i.PackedLength)
}

// doubtful reads a part of a pack, and returns which of the contents in it don't open.
func (s *Seals) doubtful(ctx context.Context, pack blob.ID, contents []content.Info, from, to int64) ([]content.Info, error) {
	data, err := s.read(ctx, pack, from, to-from)
	if err != nil {
		return nil, err
	}

	var doubtful []content.Info

	for _, i := range contents {
		a, b := span(i)
		if b-from > int64(len(data)) || s.open(data[a-from:b-from], contentIV(i.ContentID)) != nil {
			doubtful = append(doubtful, i)
		}
	}

	return doubtful, nil
}

// read reads a part of a blob; nothing where the store doesn't have that.
func (s *Seals) read(ctx context.Context, id blob.ID, offset, length int64) ([]byte, error) {
	b := &buffer{}

	err := s.st.GetBlob(ctx, id, offset, length, b)
	if err == nil {
		return b.data, nil
	}

	// Storages say in different ways that a blob is too short.
	m, missing := s.st.GetMetadata(ctx, id)
	if errors.Is(missing, blob.ErrBlobNotFound) || missing == nil && m.Length < offset+length {
		return nil, nil
	}

	return nil, fmt.Errorf("read back %s: %w", id, err)
}

// contentIV is as kopia has it (v0.23.1 repo/content/content_manager_lock_free.go).
func contentIV(id content.ID) []byte {
	h := id.Hash()

	return h[max(0, len(h)-aes.BlockSize):]
}

// BrokenIndex reports whether an index blob isn't what was written. One that isn't there,
// or is too big to be read as a whole, doesn't count.
func (s *Seals) BrokenIndex(ctx context.Context, m blob.Metadata) (bool, error) {
	iv := indexIV(m.BlobID)
	if iv == nil || m.Length > maxCheckedIndex {
		return false, nil
	}

	for range 2 {
		b := &buffer{}

		err := s.st.GetBlob(ctx, m.BlobID, 0, -1, b)
		if errors.Is(err, blob.ErrBlobNotFound) {
			return false, nil
		}

		if err != nil {
			return false, fmt.Errorf("read back %s: %w", m.BlobID, err)
		}

		if s.open(b.data, iv) == nil {
			return false, nil
		}
	}

	return true, nil
}

// indexIV is as kopia has it (v0.23.1 internal/blobcrypto): the last 32 digits of the hash
// in the blob's name. Markers, whose content nobody reads, have none.
func indexIV(id blob.ID) []byte {
	if !isIndex(id) {
		return nil
	}

	name, _, _ := strings.Cut(string(id), "-")

	iv, err := hex.DecodeString(name[max(0, len(name)-2*aes.BlockSize):])
	if err != nil || len(iv) != aes.BlockSize {
		return nil
	}

	return iv
}

// isIndex reports whether a blob holds a part of the index.
func isIndex(id blob.ID) bool {
	return strings.HasPrefix(string(id), "xn") || strings.HasPrefix(string(id), "xs") || strings.HasPrefix(string(id), "xr")
}
