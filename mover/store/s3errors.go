package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"

	"github.com/estiba-dev/estiba/mover/engine"
)

// s3Error gives a request's failure its code.
func s3Error(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}

	if ctx.Err() != nil {
		return canceled(ctx, "request to the store")
	}

	var coded *engine.Error
	if errors.As(err, &coded) {
		return err
	}

	if scheme := otherScheme(err); scheme != "" {
		return engine.Errorf(engine.CodeInvalidRequest, "the store does not speak what the location's address begins with: it must be %s (spec.config.s3Url of the location): %w", scheme, err)
	}

	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.StatusCode != 0 {
		return s3Answer(answer)
	}

	if untrusted(err) {
		return permanent{engine.Errorf(engine.CodeStoreUnavailable, "the store's certificate is not trusted: %w", err)}
	}

	return engine.Errorf(engine.CodeStoreUnavailable, "request to the store: %w", err)
}

// otherScheme gives what the address should begin with where plain HTTP met TLS, or
// TLS plain HTTP. What a server of TLS answers to plain HTTP is either an alert of
// TLS, which is no HTTP, or a refusal in words.
func otherScheme(err error) string {
	var answer minio.ErrorResponse

	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return "http://"
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`),
		errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest && strings.Contains(answer.Message, "HTTPS"):
		return "https://"
	default:
		return ""
	}
}

// untrusted tells whether TLS failed for a reason that no waiting mends.
func untrusted(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		header       tls.RecordHeaderError
	)

	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &header)
}

// s3Answer gives a server's answer its code. The S3 code goes first, where it
// says more than the HTTP status.
func s3Answer(a minio.ErrorResponse) error {
	describe := fmt.Errorf("the store answered %d %s: %w", a.StatusCode, a.Code, a)

	switch a.Code {
	case "NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed":
		return &engine.Error{Code: engine.CodeInvalidRequest, Err: describe}
	case "ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "TokenRefreshRequired", "SignatureDoesNotMatch", "AccessDenied",
		"XAdminUserNotFound": // versitygw v1.8 answers an unknown access key with this and 404
		return &engine.Error{Code: engine.CodeCredentialsInvalid, Err: describe}
	case "SlowDown", "RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "OperationAborted":
		return &engine.Error{Code: engine.CodeStoreUnavailable, Err: describe}
	}

	// A 404 means a missing blob only when the store says so in words: to take
	// anything else for it would let a repository, or the owner of a snapshot,
	// look as if it were gone.
	if a.StatusCode == http.StatusNotFound && a.Code != "NoSuchKey" && a.Code != "NoSuchVersion" {
		return &engine.Error{Code: engine.CodeInvalidRequest, Err: describe}
	}

	return s3Status(a.StatusCode, describe)
}

func s3Status(status int, describe error) error {
	switch status {
	case http.StatusNotFound:
		return fmt.Errorf("%w (%w)", blob.ErrBlobNotFound, describe)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w (%w)", blob.ErrInvalidRange, describe)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w (%w)", blob.ErrBlobAlreadyExists, describe)
	case http.StatusUnauthorized, http.StatusForbidden:
		return &engine.Error{Code: engine.CodeCredentialsInvalid, Err: describe}
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return &engine.Error{Code: engine.CodeStoreUnavailable, Err: describe}
	}

	if status >= http.StatusBadRequest && status < http.StatusInternalServerError {
		return &engine.Error{Code: engine.CodeInvalidRequest, Err: describe}
	}

	return &engine.Error{Code: engine.CodeStoreUnavailable, Err: describe}
}
