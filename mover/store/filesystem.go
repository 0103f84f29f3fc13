package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// fileStorage keeps the blobs of one repository in a folder, by kopia's own
// file-system storage, and gives its errors their codes.
//
// kopia's storage repeats a failing file operation up to ten times within some
// 11 s, and sleeps between without regard to the context; the watch layer does
// not wait for it.
type fileStorage struct {
	blob.Storage
	folder string
}

// openFilesystem opens the folder of prefix. The root must exist (an NFS mount
// that is missing must not be mistaken for an empty store); the folders below
// it are made, unless the store is read-only.
func openFilesystem(ctx context.Context, s settings.Settings, prefix string) (*fileStorage, error) {
	if _, err := os.Stat(s.Path); err != nil {
		return nil, fileError(fmt.Errorf("open the store's folder: %w", err))
	}

	folder := filepath.Join(s.Path, filepath.FromSlash(prefix))

	if !s.ReadOnly {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fileError(fmt.Errorf("make the repository's folder: %w", err))
		}
	}

	st, err := filesystem.New(ctx, &filesystem.Options{Path: folder}, !s.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, engine.Errorf(engine.CodeRepositoryNotFound, "open folder %s: %w", folder, err)
	}

	if err != nil {
		return nil, fileError(fmt.Errorf("open folder %s: %w", folder, err))
	}

	return &fileStorage{Storage: st, folder: folder}, nil
}

func (s *fileStorage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	err := s.Storage.GetBlob(ctx, id, offset, length, out)
	if err == nil || expected(err) {
		return err // kopia's own sentinel
	}

	if offset < 0 {
		return fmt.Errorf("offset %d of blob %s: %w", offset, id, blob.ErrInvalidRange)
	}

	// kopia names a range beyond the end by a text only.
	m, statErr := s.Storage.GetMetadata(ctx, id)
	if statErr == nil && length >= 0 && offset+length > m.Length {
		return fmt.Errorf("range %d+%d of the %d bytes of blob %s: %w", offset, length, m.Length, id, blob.ErrInvalidRange)
	}

	return fileError(err)
}

func (s *fileStorage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	m, err := s.Storage.GetMetadata(ctx, id)

	return m, fileError(err)
}

func (s *fileStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	return fileError(s.Storage.PutBlob(ctx, id, data, o))
}

func (s *fileStorage) DeleteBlob(ctx context.Context, id blob.ID) error {
	return fileError(s.Storage.DeleteBlob(ctx, id))
}

func (s *fileStorage) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	var fromCallback error

	err := s.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		if err := ctx.Err(); err != nil {
			return err
		}

		if ValidBlobID(m.BlobID) {
			fromCallback = callback(m)
		}

		return fromCallback
	})
	if fromCallback != nil {
		return fromCallback
	}

	return fileError(err)
}

func (s *fileStorage) GetCapacity(ctx context.Context) (blob.Capacity, error) {
	c, err := s.Storage.GetCapacity(ctx)

	return c, fileError(err)
}

// fileError gives the failure of a file operation its code.
func fileError(err error) error {
	var coded *engine.Error

	switch {
	case err == nil, expected(err), errors.As(err, &coded):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &engine.Error{Code: engine.CodeCanceled, Err: err}
	case errors.Is(err, syscall.EROFS):
		return &engine.Error{Code: engine.CodeStoreReadOnly, Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &engine.Error{Code: engine.CodeCredentialsInvalid, Err: err}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &engine.Error{Code: engine.CodeStoreFull, Err: err}
	default:
		return &engine.Error{Code: engine.CodeStoreUnavailable, Err: err}
	}
}
