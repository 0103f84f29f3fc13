package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"

	"github.com/estiba-dev/estiba/mover/engine"
)

// s3Objects are objects of a bucket; the storage has no prefix.
type s3Objects struct{ *s3Storage }

func (s *s3Objects) list(ctx context.Context, folder string) (Listing, error) {
	var l Listing

	for o := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: folder}) {
		if o.Err != nil {
			return Listing{}, s.failed(ctx, o.Err)
		}

		name, ok := strings.CutPrefix(o.Key, folder)
		if !ok {
			return Listing{}, engine.Errorf(engine.CodeInvalidRequest, "list objects: the store was asked for what begins with %s and gave %q", folder, o.Key)
		}

		switch sub, isFolder := strings.CutSuffix(name, "/"); {
		case name == "": // the folder itself, as some tools make it
		case isFolder:
			l.Folders = append(l.Folders, sub)
		default:
			l.Files = append(l.Files, name)
		}
	}

	if ctx.Err() != nil {
		return Listing{}, canceled(ctx, "list objects")
	}

	slices.Sort(l.Folders)
	slices.Sort(l.Files)

	return l, nil
}

func (s *s3Objects) get(ctx context.Context, path string) ([]byte, error) {
	body, info, _, err := s.core.GetObject(ctx, s.bucket, path, s.reading())
	if err != nil {
		return nil, objectError(s.failed(ctx, err))
	}

	defer body.Close() //nolint:errcheck // what counts was read

	content, err := io.ReadAll(io.LimitReader(body, MaxObjectSize+1))
	if err != nil {
		return nil, s.failed(ctx, err)
	}

	if len(content) > MaxObjectSize {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "object %s is larger than %d bytes", path, MaxObjectSize)
	}

	if info.Size >= 0 && int64(len(content)) < info.Size {
		return nil, engine.Errorf(engine.CodeStoreUnavailable, "read %d of %d bytes of object %s: %w", len(content), info.Size, path, io.ErrUnexpectedEOF)
	}

	return content, nil
}

func (s *s3Objects) exists(ctx context.Context, path string) (bool, error) {
	_, err := s.stat(ctx, path)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return false, nil
	}

	return err == nil, err
}

func (s *s3Objects) put(ctx context.Context, path string, content []byte, onlyNew bool) error {
	if !onlyNew {
		return putObject(ctx, s.s3Storage, path, bytes.NewReader(content), Memory(content), minio.PutObjectOptions{})
	}

	// Looked at first for servers that don't heed If-None-Match.
	there, err := s.exists(ctx, path)
	if err != nil {
		return err
	}

	if there {
		return ErrObjectExists
	}

	var o minio.PutObjectOptions

	o.SetMatchETagExcept("*")

	err = putObject(ctx, s.s3Storage, path, bytes.NewReader(content), Memory(content), o)

	var refused minio.ErrorResponse
	if errors.As(err, &refused) && (refused.StatusCode == http.StatusNotImplemented ||
		strings.Contains(strings.ToLower(refused.Message), "if-none-match")) && refused.StatusCode != http.StatusPreconditionFailed {
		return s.put(ctx, path, content, false)
	}

	return objectError(err)
}

// objectError turns kopia's sentinels into those of Objects.
func objectError(err error) error {
	switch {
	case errors.Is(err, blob.ErrBlobNotFound):
		return fmt.Errorf("%w (%s)", ErrObjectNotFound, err.Error())
	case errors.Is(err, blob.ErrBlobAlreadyExists):
		return fmt.Errorf("%w (%s)", ErrObjectExists, err.Error())
	default:
		return err
	}
}
