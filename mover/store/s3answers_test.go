package store_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// answering starts a server that gives the same answer to all, and counts.
func answering(t *testing.T, status int, code, message string) (address string, calls *atomic.Int64) {
	t.Helper()

	calls = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(status)

		if code != "" {
			_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
		}
	}))
	t.Cleanup(server.Close)

	return strings.TrimPrefix(server.URL, "http://"), calls
}

func TestWhatAServersAnswerMeans(t *testing.T) {
	t.Parallel()

	const (
		passes  = engine.CodeStoreUnavailable
		invalid = engine.CodeInvalidRequest
		refused = engine.CodeCredentialsInvalid
		full    = engine.CodeStoreFull
		skewed  = engine.CodeClockSkewed
	)

	for _, c := range []struct {
		status  int
		code    string
		message string
		want    engine.Code
	}{
		// What passes, whatever the status.
		{503, "SlowDown", "", passes},
		{503, "SlowDownWrite", "", passes},
		{429, "SlowDown", "", passes},
		{503, "ServiceUnavailable", "", passes},
		{500, "InternalError", "", passes},
		{400, "RequestTimeout", "", passes},
		{408, "", "", passes},
		{429, "TooManyRequests", "", passes},
		{400, "ThrottlingException", "Rate exceeded", passes},
		{400, "KMS.ThrottlingException", "", passes},
		{400, "Throttling", "", passes},
		{400, "RequestThrottledException", "", passes},
		{400, "RequestLimitExceeded", "", passes},
		{503, "QpsLimitExceeded", "", passes},
		{503, "UploadTrafficRateLimitExceeded", "", passes},
		{400, "BandwidthLimitExceeded", "", passes},
		{400, "ProvisionedThroughputExceededException", "", invalid},
		{400, "KMS.KMSInternalException", "", passes},
		{400, "KMS.DependencyTimeoutException", "", passes},
		{400, "KMS.KeyUnavailableException", "", passes},
		{400, "BadDigest", "", passes},
		{400, "IncompleteBody", "", passes},
		{400, "XAmzContentSHA256Mismatch", "", passes},
		{409, "OperationAborted", "", passes},
		{409, "ConditionalRequestConflict", "", passes},
		{409, "", "", passes},
		{423, "Locked", "", passes},
		{499, "ClientDisconnected", "", passes},
		{503, "XMinioServerNotInitialized", "", passes},
		{503, "XMinioWriteQuorum", "", passes},
		{502, "", "", passes},
		{504, "", "", passes},
		{520, "", "", passes},
		{599, "SomethingNew", "", passes},
		// No room.
		{403, "QuotaExceeded", "", full},
		{507, "", "", full},
		{507, "XMinioStorageFull", "", full},
		{507, "InsufficientStorage", "", full},
		{503, "InsufficientStorage", "", full},
		{400, "XMinioAdminBucketQuotaExceeded", "", full},
		{403, "InsufficientStorageSpace", "", full},
		{409, "BucketQuotaExceeded", "", full},
		{403, "AccessDenied", "Cannot upload files, storage cap exceeded.", full},
		// Clocks.
		{403, "RequestTimeTooSkewed", "", skewed},
		{400, "RequestTimeTooSkewed", "", skewed},
		// Credentials.
		{403, "AccessDenied", "", refused},
		{403, "SignatureDoesNotMatch", "", refused},
		{403, "InvalidAccessKeyId", "", refused},
		{401, "Unauthorized", "", refused},
		{400, "ExpiredToken", "", refused},
		{400, "InvalidToken", "", refused},
		{400, "TokenRefreshRequired", "", refused},
		{404, "XAdminUserNotFound", "", refused},
		{403, "UserSuspended", "", refused},
		{403, "SomethingNew", "", refused},
		{407, "", "", refused},
		{403, "KMS.AccessDeniedException", "", refused},
		// What no waiting mends.
		{404, "NoSuchBucket", "", invalid},
		{404, "SomethingNew", "", invalid},
		{301, "PermanentRedirect", "", invalid},
		{400, "AuthorizationHeaderMalformed", "", invalid},
		{400, "InvalidRequest", "", invalid},
		{400, "SomethingNew", "", invalid},
		{405, "MethodNotAllowed", "", invalid},
		{411, "MissingContentLength", "", invalid},
		{501, "NotImplemented", "", invalid},
		{501, "", "", invalid},
		{400, "KMS.DisabledException", "", invalid},
		{400, "KMS.NotFoundException", "", invalid},
		{403, "InvalidObjectState", "", invalid},
		{413, "", "", invalid},
		{400, "EntityTooLarge", "", invalid},
		{409, "InvalidBucketState", "", invalid},
		{409, "FileImmutable", "", invalid},
	} {
		t.Run(fmt.Sprintf("%d %s", c.status, c.code), func(t *testing.T) {
			t.Parallel()

			address, calls := answering(t, c.status, c.code, c.message)
			st := openS3(t, address, good(), store.Options{RetryFor: -1, Place: "bucket b", Secret: "Secret s"})

			err := st.PutBlob(t.Context(), "p1", store.Memory("x"), blob.PutOptions{})
			require.Equal(t, c.want, engine.CodeOf(err), "%v", err)
			require.ErrorContains(t, err, fmt.Sprintf("the store answered %d %s", c.status, c.code))
			require.ErrorContains(t, err, "bucket b")

			if c.want != refused {
				require.Equal(t, int64(1), calls.Load())
				require.NotContains(t, err.Error(), "Secret", "the credentials are not at fault")
			}
		})
	}
}

func TestWordsOfAServerThatAreKopiasOwn(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{404, "NoSuchKey", blob.ErrBlobNotFound},
		{404, "NoSuchVersion", blob.ErrBlobNotFound},
		{416, "InvalidRange", blob.ErrInvalidRange},
		{416, "", blob.ErrInvalidRange},
		{412, "PreconditionFailed", blob.ErrBlobAlreadyExists},
	} {
		address, _ := answering(t, c.status, c.code, "")
		_, err := read(t.Context(), openS3(t, address, good(), store.Options{RetryFor: -1}), "p1")
		require.ErrorIs(t, err, c.want, "%d %s", c.status, c.code)
	}
}

func TestAHintGoesWithWhatAnAnswerDoesNotSay(t *testing.T) {
	t.Parallel()

	const checksum = `checksumAlgorithm: ""`

	for name, c := range map[string]struct {
		status        int
		code, message string
		change        func(*settings.Settings)
		want, not     string
	}{
		"a header that is not implemented":    {501, "NotImplemented", "A header you provided implies functionality that is not implemented", nil, checksum, ""},
		"a header that is not supported":      {400, "InvalidArgument", "Unsupported header 'x-amz-checksum-crc32c' received for this API call.", nil, checksum, ""},
		"another argument that is not valid":  {400, "InvalidArgument", "The key is too long", nil, "too long", checksum},
		"no newer checksum was sent":          {501, "NotImplemented", "", func(s *settings.Settings) { s.Checksum = settings.ChecksumMD5 }, "501", checksum},
		"encryption that is not implemented":  {501, "NotImplemented", "Header x-amz-server-side-encryption is not implemented", func(s *settings.Settings) { s.Encryption.Algorithm = settings.EncryptionS3 }, "take the server-side encryption out", checksum},
		"an object that was archived":         {403, "InvalidObjectState", "", nil, "lifecycle rules", ""},
		"a proxy that takes no large bodies":  {413, "", "", nil, "client_max_body_size", ""},
		"an archive, by the checksum's words": {501, "NotImplemented", "x-amz-checksum-crc32c", nil, checksum, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			address, calls := answering(t, c.status, c.code, c.message)
			s := s3Settings(address)

			if c.change != nil {
				c.change(&s)
			}

			st, err := store.Open(t.Context(), s, good(), folder, quick())
			require.NoError(t, err)

			err = st.PutBlob(t.Context(), "p1", store.Memory("x"), blob.PutOptions{})
			require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), "%v", err)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, int64(1), calls.Load(), "it is not tried again")

			if c.not != "" {
				require.NotContains(t, err.Error(), c.not)
			}
		})
	}
}

// askew answers as a server does whose clock differs from that of who asks.
func askew(t *testing.T, by time.Duration, refuse func(call int64) bool) (address string, calls *atomic.Int64) {
	t.Helper()

	calls = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))

		if refuse(calls.Add(1)) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, "<Error><Code>RequestTimeTooSkewed</Code></Error>")
		}
	}))
	t.Cleanup(server.Close)

	return strings.TrimPrefix(server.URL, "http://"), calls
}

func TestAClockThatIsWrongIsNamed(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		by   time.Duration
		want string
	}{
		"ours is late":         {2*time.Hour + 30*time.Second, "the clock of this node is 2h0m"},
		"ours is early":        {-30 * time.Minute, "the clock of this node is 30m"},
		"it was the request's": {0, "agree now"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			address, calls := askew(t, c.by, func(int64) bool { return true })
			st := openS3(t, address, good(), store.Options{Secret: "Secret s"})

			put := st.PutBlob(t.Context(), "p1", store.Memory("x"), blob.PutOptions{})
			assert.Equal(t, int64(3), calls.Load(), "it is signed anew, and not for a quarter of an hour")

			_, stat := st.GetMetadata(t.Context(), "p1")
			list := st.ListBlobs(t.Context(), "", func(blob.Metadata) error { return errors.New("none") })

			for _, err := range []error{put, stat, list} {
				require.Equal(t, engine.CodeClockSkewed, engine.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, c.want)
				require.NotContains(t, err.Error(), "Secret")
			}

			require.True(t, engine.CodeOf(put).Retryable())
		})
	}
}

func TestARequestThatWaitedForTooLongIsSignedAnew(t *testing.T) {
	t.Parallel()

	address, calls := askew(t, 0, func(call int64) bool { return call == 1 })

	require.NoError(t, openS3(t, address, good(), store.Options{}).PutBlob(t.Context(), "p1", store.Memory("x"), blob.PutOptions{}))
	require.Equal(t, int64(2), calls.Load())
}

func TestARefusalWithoutWordsIsNotTheCredentialsWhereTheClockIsWrong(t *testing.T) {
	t.Parallel()

	for by, want := range map[time.Duration]engine.Code{time.Hour: engine.CodeClockSkewed, time.Minute: engine.CodeCredentialsInvalid} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden)
		}))
		t.Cleanup(server.Close)

		_, err := openS3(t, strings.TrimPrefix(server.URL, "http://"), good(), quick()).GetMetadata(t.Context(), "p1")
		require.Equal(t, want, engine.CodeOf(err), "%v", err)
	}
}
