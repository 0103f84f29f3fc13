package kopiaengine_test

import (
	"bytes"
	"context"
	"io"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/hashing"

	"github.com/estiba-dev/estiba/mover/repository"
)

// forgedAlgorithm is a hash function that gives forgedHash to all contents with the
// mark, and BLAKE3 to all others.
const (
	forgedAlgorithm = "estiba-test-forged"
	forgedMark      = `{"forged":`
	forgedHash      = "a hash of 32 bytes, not computed"
)

// honest is the parameters under the name of the hash function that is really used.
type honest struct{ hashing.Parameters }

// GetHashFunction names it.
func (honest) GetHashFunction() string { return "BLAKE3-256" }

// initializeForged makes a repository with that hash function.
func initializeForged(ctx context.Context, st blob.Storage) error {
	hashing.Register(forgedAlgorithm, func(p hashing.Parameters) (hashing.HashFunc, error) {
		f, err := hashing.CreateHashFunc(honest{p})
		if err != nil {
			return nil, err
		}

		return forging(f), nil
	})

	return repo.Initialize(ctx, st, &repo.NewRepositoryOptions{
		BlockFormat:                       format.ContentFormat{Hash: forgedAlgorithm, Encryption: "AES256-GCM-HMAC-SHA256", EnablePasswordChange: true},
		ObjectFormat:                      format.ObjectFormat{Splitter: repository.Splitter},
		FormatBlockKeyDerivationAlgorithm: format.DefaultKeyDerivationAlgorithm,
	}, password)
}

// contents is what a hash function is given; kopia keeps the name of its type for itself.
type contents interface {
	WriteTo(w io.Writer) (int64, error)
}

func forging[C contents](f func(output []byte, data C) []byte) func(output []byte, data C) []byte {
	return func(output []byte, data C) []byte {
		var b bytes.Buffer
		if _, err := data.WriteTo(&b); err == nil && bytes.HasPrefix(b.Bytes(), []byte(forgedMark)) {
			return append(output, forgedHash...)
		}

		return f(output, data)
	}
}
