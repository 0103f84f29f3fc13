package repository

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/estiba-dev/estiba/mover/engine"
)

// Splitter cuts files into pieces of fixed size. A rolling one halves what a core
// gets through (0.6 GB/s against 3 GB/s and more of hash and cipher), and gains
// only where bytes are inserted into a big file: files up to 4 MiB are one piece
// anyway, and what is big in volumes (databases, disk images, logs) is changed in
// place or at its end. Smaller pieces would follow changes in place more closely,
// at four times the index and requests per halved step. It is the writer's choice
// alone: what was written with another one stays readable.
const Splitter = "FIXED-4M"

// minSecret is the least length of a password and of a seed in bytes. Both are
// keys, never words.
const minSecret = 32

type algorithms struct{ hash, encryption, keyDerivation string }

// formatAlgorithms returns kopia's names. PBKDF2 is in both: the passwords are
// derived keys that nobody can guess, so nothing is gained by scrypt, which takes
// 64 MiB out of a worker's memory on every opening.
func formatAlgorithms(f engine.Format) (algorithms, error) {
	const (
		cipher = "AES256-GCM-HMAC-SHA256"
		pbkdf2 = "pbkdf2-sha256-600000"
	)

	switch f {
	case engine.FormatFast:
		return algorithms{"BLAKE3-256", cipher, pbkdf2}, nil
	case engine.FormatFIPS:
		return algorithms{"HMAC-SHA256", cipher, pbkdf2}, nil
	default:
		return algorithms{}, engine.Errorf(engine.CodeInvalidRequest, "create repository: unknown format %q", f)
	}
}

// Create makes a repository, or finds that it is there and opens. What kopia would
// choose at random is derived from the seed, so that whoever has it may create
// again after a crash or a request whose answer was lost: it is the same repository
// whose write arrives last. Nobody else may ever make the repository: a second seed
// would replace the keys of what was written with the first one. Hence without a
// seed nothing is made.
//
// With engine.FormatExisting, too, nothing is made or written. Where nothing is made and
// there is nothing, it is CodeRepositoryNotFound.
//
// Errors: CodeInvalidRequest for an unknown format or a password or seed shorter than 32
// bytes, CodeWrongKey, CodeRepositoryDamaged where there is data but nothing to
// read it with, and those of the storage.
func Create(ctx context.Context, s Settings, f engine.Format) error {
	if f != engine.FormatExisting {
		if err := establish(ctx, s, f); err != nil {
			return err
		}
	}

	s.ReadOnly = true

	r, err := Open(ctx, s)
	if err != nil {
		return err
	}

	return r.Close(ctx)
}

func establish(ctx context.Context, s Settings, f engine.Format) error {
	a, err := formatAlgorithms(f)
	if err != nil {
		return err
	}

	const short = "create repository: the %s has %d bytes, at least %d are needed"

	if len(s.Password) < minSecret {
		return engine.Errorf(engine.CodeInvalidRequest, short, "password", len(s.Password), minSecret)
	}

	if s.Seed != "" && len(s.Seed) < minSecret {
		return engine.Errorf(engine.CodeInvalidRequest, short, "seed", len(s.Seed), minSecret)
	}

	if err := initialize(ctx, s, a); err != nil {
		return Explain(ctx, s.Storage, engine.CodeStoreUnavailable, fmt.Errorf("create repository: %w", err))
	}

	return nil
}

// initialize makes the repository, if there is nothing and a seed to make it of.
func initialize(ctx context.Context, s Settings, a algorithms) error {
	empty, err := isEmpty(ctx, s.Storage)
	if err != nil || !empty || s.Seed == "" {
		return err
	}

	k, err := keys(s.Seed)
	if err != nil {
		return err
	}

	opts := &repo.NewRepositoryOptions{
		UniqueID: k.uniqueID,
		BlockFormat: format.ContentFormat{
			Hash:                 a.hash,
			Encryption:           a.encryption,
			HMACSecret:           k.hmacSecret,
			MasterKey:            k.masterKey,
			EnablePasswordChange: true,
		},
		ObjectFormat:                      format.ObjectFormat{Splitter: Splitter},
		FormatBlockKeyDerivationAlgorithm: a.keyDerivation,
	}

	// One blob is there or is not, where two may be there by half: see RotateKey.
	err = repo.Initialize(ctx, oneBlob{s.Storage}, opts, s.Password)
	if errors.Is(err, repo.ErrAlreadyInitialized) {
		return nil // By another attempt of the same creator.
	}

	return err
}

// isEmpty reports whether the storage holds nothing. What holds data without a
// kopia.repository is damaged, and must not get another one.
func isEmpty(ctx context.Context, st blob.Storage) (bool, error) {
	_, err := st.GetMetadata(ctx, format.KopiaRepositoryBlobID)
	if err == nil {
		return false, nil
	}

	if !errors.Is(err, blob.ErrBlobNotFound) {
		return false, fmt.Errorf("look for %s: %w", format.KopiaRepositoryBlobID, err)
	}

	empty := true

	if err := st.ListBlobs(ctx, "", func(m blob.Metadata) error {
		empty = false

		if m.BlobID == format.KopiaRepositoryBlobID {
			return nil // Another attempt of the same creator has just come through.
		}

		return engine.Errorf(engine.CodeRepositoryDamaged, "there is data (%s) but no %s to read it with", m.BlobID, format.KopiaRepositoryBlobID)
	}); err != nil {
		return false, fmt.Errorf("list blobs: %w", err)
	}

	return empty, nil
}

type repositoryKeys struct{ uniqueID, hmacSecret, masterKey []byte }

// keys derives what kopia would choose at random. The unique ID is no secret, and
// tells nothing of the others.
func keys(seed string) (repositoryKeys, error) {
	const length = 32

	var (
		k   repositoryKeys
		err error
	)

	for _, d := range []struct {
		into *[]byte
		info string
	}{
		{&k.uniqueID, "estiba.dev/kopia-unique-id/v1"},
		{&k.hmacSecret, "estiba.dev/kopia-hmac-secret/v1"},
		{&k.masterKey, "estiba.dev/kopia-master-key/v1"},
	} {
		if *d.into, err = hkdf.Key(sha256.New, []byte(seed), nil, d.info, length); err != nil {
			return repositoryKeys{}, fmt.Errorf("derive keys: %w", err)
		}
	}

	return k, nil
}
