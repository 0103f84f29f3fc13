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

// minPassword is the least length of a password in bytes. Passwords are derived
// keys, never words: see keys.
const minPassword = 32

type algorithms struct{ hash, encryption, keyDerivation string }

// formatAlgorithms gives kopia's names. PBKDF2 is in both: the passwords are
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

// Create makes a repository, or finds that it is there and opens with the password.
// Creating it twice, also concurrently, or again after a crash half-way is fine: all
// that kopia would choose at random is derived from the password, so that whoever
// writes last writes the same repository.
//
// With engine.FormatExisting nothing is made or written: where there is no
// repository, it is CodeRepositoryNotFound.
//
// Errors: CodeInvalidRequest for an unknown format or a password shorter than 32
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

	if len(s.Password) < minPassword {
		return engine.Errorf(engine.CodeInvalidRequest, "create repository: the password has %d bytes, at least %d are needed", len(s.Password), minPassword)
	}

	if err := initialize(ctx, s, a); err != nil && !errors.Is(err, repo.ErrAlreadyInitialized) {
		return Explain(ctx, s.Storage, engine.CodeStoreUnavailable, fmt.Errorf("create repository: %w", err))
	}

	return nil
}

func initialize(ctx context.Context, s Settings, a algorithms) error {
	if err := clearHalfMade(ctx, s.Storage); err != nil {
		return err
	}

	k, err := keys(s.Password)
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

	return repo.Initialize(ctx, s.Storage, opts, s.Password)
}

// clearHalfMade removes what a creation that was cut off has left: kopia writes
// its blob of settings first, and then refuses to go on where it finds it alone.
func clearHalfMade(ctx context.Context, st blob.Storage) error {
	_, err := st.GetMetadata(ctx, format.KopiaRepositoryBlobID)
	if err == nil {
		return nil
	}

	if !errors.Is(err, blob.ErrBlobNotFound) {
		return fmt.Errorf("look for %s: %w", format.KopiaRepositoryBlobID, err)
	}

	half := false

	if err := st.ListBlobs(ctx, "", func(m blob.Metadata) error {
		if m.BlobID == format.KopiaRepositoryBlobID {
			return nil // Another creator has just come first.
		}

		if m.BlobID != format.KopiaBlobCfgBlobID {
			return engine.Errorf(engine.CodeRepositoryDamaged, "there is data (%s) but no %s to read it with", m.BlobID, format.KopiaRepositoryBlobID)
		}

		half = true

		return nil
	}); err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}

	if !half {
		return nil
	}

	if err := st.DeleteBlob(ctx, format.KopiaBlobCfgBlobID); err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
		return fmt.Errorf("remove %s: %w", format.KopiaBlobCfgBlobID, err)
	}

	return nil
}

type repositoryKeys struct{ uniqueID, hmacSecret, masterKey []byte }

// keys derives what kopia would choose at random. The unique ID is no secret, and
// tells nothing of the others.
func keys(password string) (repositoryKeys, error) {
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
		if *d.into, err = hkdf.Key(sha256.New, []byte(password), nil, d.info, length); err != nil {
			return repositoryKeys{}, fmt.Errorf("derive keys: %w", err)
		}
	}

	return k, nil
}
