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
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// s3Error returns a request's failure with its code.
func s3Error(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, errBeyond) {
		return err
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

// otherScheme returns what the address should begin with where plain HTTP met TLS, or
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

// untrusted reports whether TLS failed for a reason that no waiting mends.
func untrusted(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		header       tls.RecordHeaderError
	)

	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &header)
}

// verdict is what an answer of a server means for us.
type verdict struct {
	code engine.Code
	// is is kopia's word for the answer, in place of a code.
	is error
	// hint says what to do, where the answer itself doesn't.
	hint string
}

func (v verdict) err(a minio.ErrorResponse) error {
	err := fmt.Errorf("the store answered %d %s: %w", a.StatusCode, a.Code, a)
	if v.hint != "" {
		err = fmt.Errorf("%w; %s", err, v.hint)
	}

	if v.is != nil {
		return fmt.Errorf("%w (%w)", v.is, err)
	}

	return &engine.Error{Code: v.code, Err: err}
}

// s3Answer returns a server's answer as an error with its code. The S3 code goes first, where it
// says more than the HTTP status.
func s3Answer(a minio.ErrorResponse) error {
	if v, ok := ofS3Code(a); ok {
		return v.err(a)
	}

	return ofStatus(a.StatusCode).err(a)
}

const (
	hintArchived = "objects below plugins/estiba must not be archived: bring them back, and take them out of the bucket's lifecycle rules"
	hintTooLarge = "what lies between this node and the store must take bodies of 100 MiB (nginx: client_max_body_size)"
)

// ofS3Code judges by the word of the answer, which is one of Amazon's in all
// servers, or one of their own. False leaves it to the status.
func ofS3Code(a minio.ErrorResponse) (verdict, bool) {
	code := strings.TrimPrefix(a.Code, "KMS.")

	switch {
	case strings.Contains(code, "QuotaExceeded"), strings.Contains(code, "StorageFull"), strings.Contains(code, "InsufficientStorage"),
		strings.HasSuffix(strings.ToLower(a.Message), "cap exceeded"), // Backblaze answers this with AccessDenied
		strings.Contains(strings.ToLower(a.Message), "cap exceeded."):
		return verdict{code: engine.CodeStoreFull}, true
	case strings.Contains(code, "Throttl"), strings.Contains(code, "LimitExceeded"), strings.HasPrefix(code, "SlowDown"):
		return verdict{code: engine.CodeStoreUnavailable}, true
	}

	v, ok := s3Codes()[code]
	if !ok && a.StatusCode == http.StatusNotFound {
		// A 404 means a missing blob only when the store says so in words: to take
		// anything else for it would let a repository, or the owner of a snapshot,
		// look as if it were gone.
		return verdict{code: engine.CodeInvalidRequest}, true
	}

	return v, ok
}

// s3Codes are the words that say more than their status, or something else.
func s3Codes() map[string]verdict {
	codes := map[string]verdict{
		"NoSuchKey":            {is: blob.ErrBlobNotFound},
		"NoSuchVersion":        {is: blob.ErrBlobNotFound},
		"RequestTimeTooSkewed": {code: engine.CodeClockSkewed},
		"InvalidObjectState":   {code: engine.CodeInvalidRequest, hint: hintArchived},
		"EntityTooLarge":       {code: engine.CodeInvalidRequest, hint: hintTooLarge},
	}

	for code, words := range map[engine.Code][]string{
		engine.CodeInvalidRequest: {
			"NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed", "NotImplemented", "MethodNotAllowed",
			// Conflicts that don't pass.
			"InvalidBucketState", "FileImmutable", "FileAlreadyExists", "ObjectNotAppendable",
			// Of the key management: 400, and with some servers 403.
			"DisabledException", "NotFoundException", "KMSInvalidStateException", "InvalidKeyUsageException",
		},
		engine.CodeCredentialsInvalid: {
			"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "InvalidClientTokenId",
			"UnrecognizedClientException", "SignatureDoesNotMatch", "AccessDenied", "AccessDeniedException",
			"XAdminUserNotFound", // versitygw v1.8 answers an unknown access key with this and 404
		},
		engine.CodeStoreUnavailable: {
			"InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "Busy", "RequestTimeout", "RequestTimeoutException",
			"RequestCanceled", "ClientDisconnected", "OperationAborted", "ConditionalRequestConflict", "TransactionInProgressException",
			"PriorRequestNotComplete", "TooManyRequests", "TooManyRequestsException", "RequestRateTooHigh",
			"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
			// Of the key management, with 400.
			"KMSInternalException", "DependencyTimeoutException", "InternalException", "KeyUnavailableException",
			// MinIO's, while it begins or lacks drives.
			"XMinioServerNotInitialized", "XMinioReadQuorum", "XMinioWriteQuorum", "XMinioBackendDown",
		},
	} {
		for _, word := range words {
			codes[word] = verdict{code: code}
		}
	}

	return codes
}

// ofStatus judges by the HTTP status alone. What is unknown may pass where it is
// the server's own fault, and doesn't where it is the request's.
func ofStatus(status int) verdict {
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		return verdict{is: blob.ErrInvalidRange}
	case http.StatusPreconditionFailed:
		return verdict{is: blob.ErrBlobAlreadyExists}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return verdict{code: engine.CodeCredentialsInvalid}
	case http.StatusInsufficientStorage:
		return verdict{code: engine.CodeStoreFull}
	case http.StatusRequestEntityTooLarge:
		return verdict{code: engine.CodeInvalidRequest, hint: hintTooLarge}
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return verdict{code: engine.CodeInvalidRequest}
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusLocked, http.StatusTooEarly, http.StatusTooManyRequests, statusClientClosed:
		return verdict{code: engine.CodeStoreUnavailable}
	}

	if status >= http.StatusMultipleChoices && status < http.StatusInternalServerError {
		return verdict{code: engine.CodeInvalidRequest}
	}

	return verdict{code: engine.CodeStoreUnavailable}
}

// statusClientClosed is nginx's, for a request that ended before its answer.
const statusClientClosed = 499

// refusedHeader returns what to do about a header that the server doesn't know; empty
// where that is not what it says.
func (s *s3Storage) refusedHeader(err error) string {
	var a minio.ErrorResponse
	if !errors.As(err, &a) {
		return ""
	}

	message := strings.ToLower(a.Message)
	unknown := a.StatusCode == http.StatusNotImplemented || a.Code == minio.NotImplemented ||
		a.StatusCode == http.StatusBadRequest && (strings.Contains(message, "unsupported header") || strings.Contains(message, "x-amz-checksum"))

	switch {
	case !unknown:
		return ""
	case s.encryption != nil && strings.Contains(message, "encryption"):
		return "take the server-side encryption out of the location's spec.config"
	case s.checksum != settings.ChecksumMD5:
		return `the store may not know checksums in headers (x-amz-checksum-crc32c): set checksumAlgorithm: "" in spec.config of the location`
	default:
		return ""
	}
}
