package store

import (
	"context"
	"crypto/md5" //nolint:gosec // Content-MD5 guards against accidents, as S3 defines it
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// s3Storage keeps the blobs of one repository in an S3 bucket, under the same
// names as kopia's own S3 storage (prefix + blob ID), so that the stock kopia
// opens the repository.
//
// kopia's own provider (repo/blob/s3) is not used: it can't be told path or
// host style, nests ten of its own attempts around ten of the client library's,
// sleeps between them without regard to the context, takes a refused key for an
// outage, and falls back to the environment's and the machine's credentials.
type s3Storage struct {
	blob.DefaultProviderImplementation

	core     *minio.Core
	renewer  *renewingProvider
	dated    *dated
	bucket   string
	prefix   string
	secure   bool
	checksum settings.Checksum
	// encryption that the server is asked for; nil to leave it to the bucket.
	encryption encrypt.ServerSide
}

// kopiaStorageConfig is a file of kopia's S3 storage that is no blob (kopia v0.23.1 repo/blob/s3/s3_storage_config.go).
const kopiaStorageConfig = ".storageconfig"

func openS3(s settings.Settings, source settings.Source, prefix string, now func() time.Time) (*s3Storage, error) {
	core, renewer, dated, err := dialS3(s, source, now)
	if err != nil {
		return nil, err
	}

	return &s3Storage{
		core: core, renewer: renewer, dated: dated, bucket: s.Bucket, prefix: prefix,
		secure: !s.DoNotUseTLS, checksum: s.Checksum, encryption: serverSide(s.Encryption),
	}, nil
}

// reading returns the options to read objects with: a customer's key goes with those requests, too.
func (s *s3Storage) reading() minio.GetObjectOptions {
	return minio.GetObjectOptions{ServerSideEncryption: s.encryption}
}

// failed sets the code of a request's failure.
func (s *s3Storage) failed(ctx context.Context, err error) error {
	return s.dated.blame(s3Error(ctx, err))
}

func (s *s3Storage) key(id blob.ID) string { return s.prefix + string(id) }

// GetBlob reads in one request. A body that ends early is an outage
// (StoreUnavailable); a blob that is shorter than the range is blob.ErrInvalidRange.
func (s *s3Storage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	out.Reset()

	if offset < 0 {
		return fmt.Errorf("offset %d of blob %s: %w", offset, id, blob.ErrInvalidRange)
	}

	if length == 0 {
		_, err := s.GetMetadata(ctx, id)

		return err
	}

	o := s.reading()

	if length > 0 {
		if err := o.SetRange(offset, offset+length-1); err != nil {
			return fmt.Errorf("range %d+%d of blob %s: %w", offset, length, id, blob.ErrInvalidRange)
		}
	}

	body, info, _, err := s.core.GetObject(ctx, s.bucket, s.key(id), o)
	if err != nil {
		return s.failed(ctx, err)
	}

	defer body.Close() //nolint:errcheck // what counts was read

	if err := makeRoom(out, info.Size); err != nil {
		return err
	}

	n, err := io.Copy(out, body)
	if err != nil {
		return s.failed(ctx, err)
	}

	if info.Size >= 0 && n < info.Size {
		return engine.Errorf(engine.CodeStoreUnavailable, "read %d bytes of blob %s where the store announced %d: %w", n, id, info.Size, io.ErrUnexpectedEOF)
	}

	return blob.EnsureLengthExactly(int(n), length) // kopia's own sentinel
}

// maxPreallocate bounds what is allocated on a store's word alone.
const maxPreallocate = 64 << 20

func (s *s3Storage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	info, err := s.stat(ctx, s.key(id))
	if err != nil {
		return blob.Metadata{}, err
	}

	return blob.Metadata{BlobID: id, Length: info.Size, Timestamp: info.LastModified}, nil
}

// stat looks at an object. The answer to a HEAD has no body, so that a bucket or
// a key that is unknown looks like an object that is, and every refusal like any
// other: what is refused is asked for by a GET as well, whose answer says why.
func (s *s3Storage) stat(ctx context.Context, key string) (minio.ObjectInfo, error) {
	info, err := s.core.StatObject(ctx, s.bucket, key, s.reading())

	var refused minio.ErrorResponse
	if !errors.As(err, &refused) || refused.StatusCode < http.StatusBadRequest || refused.StatusCode >= http.StatusInternalServerError {
		return info, s.failed(ctx, err)
	}

	first := s.reading()
	if err := first.SetRange(0, 1); err != nil {
		return minio.ObjectInfo{}, engine.Errorf(engine.CodeInternal, "ask for the first bytes of %s: %w", key, err)
	}

	body, _, _, getErr := s.core.GetObject(ctx, s.bucket, key, first)
	if getErr != nil {
		return minio.ObjectInfo{}, s.failed(ctx, getErr)
	}

	_ = body.Close()

	return minio.ObjectInfo{}, engine.Errorf(engine.CodeStoreUnavailable,
		"the store has object %s, and answered %d %s when it was asked whether it has", key, refused.StatusCode, refused.Code)
}

// PutBlob writes in one request, whatever the size.
func (s *s3Storage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	switch {
	case o.HasRetentionOptions():
		return fmt.Errorf("retention: %w", blob.ErrUnsupportedPutBlobOption)
	case o.DoNotRecreate:
		return fmt.Errorf("do-not-recreate: %w", blob.ErrUnsupportedPutBlobOption)
	case !o.SetModTime.IsZero():
		return blob.ErrSetTimeUnsupported
	}

	body := data.Reader()
	defer body.Close() //nolint:errcheck // it holds memory only

	if err := putObject(ctx, s, s.key(id), body, unwatched(data), minio.PutObjectOptions{}); err != nil {
		return err
	}

	if o.GetModTime == nil {
		return nil
	}

	m, err := s.GetMetadata(ctx, id)
	if err != nil {
		return err
	}

	*o.GetModTime = m.Timestamp

	return nil
}

// putObject sends body, which reads content. Over TLS the content is guarded by a
// checksum of its own; without TLS by its SHA-256 in the signature too.
func putObject(ctx context.Context, s *s3Storage, key string, body io.Reader, content blob.Bytes, o minio.PutObjectOptions) error {
	var md5Base64, sha256Hex string

	o.ContentType = "application/x-kopia"
	o.ServerSideEncryption = s.encryption
	o.DisableContentSha256 = true // no chunked signature: it is given in one piece below

	if !s.secure {
		sum, err := sumOf(sha256.New(), content)
		if err != nil {
			return err
		}

		sha256Hex = hex.EncodeToString(sum)
	}

	guard := hash.Hash(crc32.New(crc32.MakeTable(crc32.Castagnoli)))
	if s.checksum == settings.ChecksumMD5 {
		guard = md5.New() //nolint:gosec // as S3 defines it
	}

	sum, err := sumOf(guard, content)
	if err != nil {
		return err
	}

	if s.checksum == settings.ChecksumMD5 {
		md5Base64 = base64.StdEncoding.EncodeToString(sum)
	} else {
		o.UserMetadata = map[string]string{"x-amz-checksum-crc32c": base64.StdEncoding.EncodeToString(sum)}
	}

	// Hiding Seek keeps the client library from sending twice on its own.
	_, err = s.core.PutObject(ctx, s.bucket, key, struct{ io.Reader }{body}, int64(content.Length()), md5Base64, sha256Hex, o)
	if hint := s.refusedHeader(err); hint != "" {
		return engine.Errorf(engine.CodeInvalidRequest, "%w; %s", s3Error(ctx, err), hint)
	}

	return s.failed(ctx, err)
}

func sumOf(h hash.Hash, content blob.Bytes) ([]byte, error) {
	if _, err := content.WriteTo(h); err != nil {
		return nil, engine.Errorf(engine.CodeInternal, "read %d bytes of a blob's content: %w", content.Length(), err)
	}

	return h.Sum(nil), nil
}

func (s *s3Storage) DeleteBlob(ctx context.Context, id blob.ID) error {
	err := s.failed(ctx, s.core.RemoveObject(ctx, s.bucket, s.key(id), minio.RemoveObjectOptions{}))
	if expected(err) {
		return nil // what is gone is gone
	}

	return err
}

// s3Page is after how many blobs a page of a listing ends: some requests of the
// server's own pages.
const s3Page = 5000

// listPage goes on behind the key that after names. Within a page the server's own
// tokens lead on, as all servers know them.
func (s *s3Storage) listPage(ctx context.Context, prefix blob.ID, after string) (page, error) {
	var p page

	// Whoever stops before the end must end what fetches the next ones.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()

	o := minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true, StartAfter: after}

	for o := range s.core.ListObjectsIter(inner, s.bucket, o) {
		if o.Err != nil {
			return page{}, s.failed(ctx, o.Err)
		}

		name, ok := strings.CutPrefix(o.Key, s.prefix)
		if !ok {
			return page{}, engine.Errorf(engine.CodeInvalidRequest, "list blobs: the store was asked for what begins with %s and gave %q", s.key(prefix), o.Key)
		}

		// A server that doesn't know where to begin begins at the beginning.
		if o.Key <= after {
			continue
		}

		pulseOf(ctx).beat()

		if id := blob.ID(name); id != kopiaStorageConfig && ValidBlobID(id) {
			p.blobs = append(p.blobs, blob.Metadata{BlobID: id, Length: o.Size, Timestamp: o.LastModified})
		}

		if len(p.blobs) >= s3Page {
			p.next = o.Key

			return p, nil
		}
	}

	if ctx.Err() != nil {
		return page{}, canceled(ctx, "list blobs")
	}

	return p, nil
}

func (s *s3Storage) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	return eachPage(ctx, s, prefix, callback)
}

// Close closes the connections that nobody uses.
func (s *s3Storage) Close(context.Context) error {
	s.dated.transport.CloseIdleConnections()

	return nil
}

// ConnectionInfo names the storage; it holds nothing to connect by.
func (s *s3Storage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &connectionConfig{}}
}

func (s *s3Storage) DisplayName() string { return fmt.Sprintf("s3://%s/%s", s.bucket, s.prefix) }

func (s *s3Storage) renew(seen uint64) bool { return s.renewer.renew(seen) }

func (s *s3Storage) generation() uint64 { return s.renewer.generation() }
