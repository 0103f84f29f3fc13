package repository

import (
	"context"
	"errors"
	"os"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"

	"github.com/estiba-dev/estiba/mover/engine"
)

// stickyStorage is a storage that remembers the failure that it gave up on. Kopia
// passes storage errors off as errors of files, of caches or of nothing at all; the
// storage knows better.
type stickyStorage interface {
	// Err returns the failure, or nil. It may be called at any time.
	Err() error
}

// StorageErr returns the failure that a storage has given up on, if it remembers one.
func StorageErr(st blob.Storage) error {
	if s, ok := st.(stickyStorage); ok {
		return s.Err()
	}

	return nil
}

// Explain sets the code of err: Canceled if ctx is done, the storage's own
// if it has given up, what kopia's error means, or else the given one. A nil err
// stays nil, whatever the storage says.
func Explain(ctx context.Context, st blob.Storage, otherwise engine.Code, err error) error {
	if err == nil {
		return nil
	}

	if ctx.Err() != nil {
		return &engine.Error{Code: engine.CodeCanceled, Err: errors.Join(context.Cause(ctx), err)}
	}

	if sticky := StorageErr(st); sticky != nil {
		return &engine.Error{Code: storeCode(sticky), Err: errors.Join(sticky, err)}
	}

	var known *engine.Error
	if errors.As(err, &known) {
		return &engine.Error{Code: known.Code, Err: err}
	}

	return &engine.Error{Code: codeOf(err, otherwise), Err: err}
}

func storeCode(err error) engine.Code {
	var known *engine.Error

	switch {
	case errors.As(err, &known):
		return known.Code
	case errors.Is(err, blob.ErrInvalidCredentials):
		return engine.CodeCredentialsInvalid
	}

	return engine.CodeStoreUnavailable
}

func codeOf(err error, otherwise engine.Code) engine.Code {
	switch {
	case errors.Is(err, repo.ErrInvalidPassword):
		return engine.CodeWrongKey
	case errors.Is(err, repo.ErrRepositoryNotInitialized):
		return engine.CodeRepositoryNotFound
	case errors.Is(err, blob.ErrInvalidCredentials):
		return engine.CodeCredentialsInvalid
	case isMissing(err):
		return engine.CodeRepositoryDamaged
	case isOfStorage(err):
		return engine.CodeStoreUnavailable
	}

	return otherwise
}

// isMissing reports whether kopia looked for something that ought to be there.
func isMissing(err error) bool {
	return errors.Is(err, blob.ErrBlobNotFound) || errors.Is(err, blob.ErrInvalidRange) ||
		errors.Is(err, content.ErrContentNotFound) || errors.Is(err, object.ErrObjectNotFound) ||
		errors.Is(err, manifest.ErrNotFound)
}

// isOfStorage reports whether the operating system failed a file-system storage, which
// remembers nothing.
func isOfStorage(err error) bool {
	var pe *os.PathError

	return errors.As(err, &pe)
}

// missingFormat reports whether the storage holds no repository.
func missingFormat(ctx context.Context, st blob.Storage) bool {
	_, err := st.GetMetadata(ctx, format.KopiaRepositoryBlobID)

	return errors.Is(err, blob.ErrBlobNotFound)
}
