package store_test

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// recorder stands between a client and an S3 server, and notes the headers of
// server-side encryption by method.
type recorder struct {
	mu   sync.Mutex
	seen map[string]map[string]string
}

// over puts the recorder, with TLS, before a server and gives its address and the certificate of its authority.
func (r *recorder) over(t *testing.T, address string) (secure string, ca []byte) {
	t.Helper()

	server := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: address})
		p.Out.Host = p.In.Host
		r.note(p.In)
	}})
	t.Cleanup(server.Close)

	return strings.TrimPrefix(server.URL, "https://"),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

func (r *recorder) note(in *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()

	what := in.Method
	if in.URL.Query().Has("list-type") {
		what = "LIST"
	}

	headers := map[string]string{}

	for name := range in.Header {
		if short, ok := strings.CutPrefix(name, "X-Amz-Server-Side-Encryption"); ok {
			headers[short] = in.Header.Get(name)
		}
	}

	if r.seen == nil {
		r.seen = map[string]map[string]string{}
	}

	if before, ok := r.seen[what]; ok && len(before) != len(headers) {
		headers["of some only"] = in.URL.Path
	}

	r.seen[what] = headers
}

func TestTheServerIsAskedToEncrypt(t *testing.T) {
	t.Parallel()

	key := bytes.Repeat([]byte{7}, 32)
	customer := map[string]string{
		"-Customer-Algorithm": "AES256", "-Customer-Key": base64.StdEncoding.EncodeToString(key),
		"-Customer-Key-Md5": "y4HAEFCYWuvAXWFTtA1Qpg==", // of 32 bytes of 7
	}
	address := gateway(t)

	for name, c := range map[string]struct {
		encryption  settings.Encryption
		write, read map[string]string
	}{
		"not, where nothing is set": {write: map[string]string{}, read: map[string]string{}},
		"with keys of its own":      {settings.Encryption{Algorithm: settings.EncryptionS3}, map[string]string{"": "AES256"}, map[string]string{}},
		"with a key of its key management": {
			settings.Encryption{Algorithm: settings.EncryptionKMS, KMSKeyID: "alias/backups"},
			map[string]string{"": "aws:kms", "-Aws-Kms-Key-Id": "alias/backups"},
			map[string]string{},
		},
		"twice, with the key management's own key": {settings.Encryption{Algorithm: settings.EncryptionKMSTwice}, map[string]string{"": "aws:kms:dsse"}, map[string]string{}},
		"with a key that goes with each request":   {settings.Encryption{CustomerKey: key}, customer, customer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var (
				asked recorder
				ctx   = t.Context()
				s     = s3Settings(address)
			)

			s.Endpoint, s.CACert = asked.over(t, address)
			s.DoNotUseTLS, s.Encryption = false, c.encryption
			s.Prefix = strings.ReplaceAll(name, " ", "-")

			st, err := store.Open(ctx, s, good(), folder, quick())
			require.NoError(t, err)
			require.NoError(t, st.PutBlob(ctx, "p1", store.Memory("content"), blob.PutOptions{}))

			var out store.Buffer

			require.NoError(t, st.GetBlob(ctx, "p1", 0, 7, &out))
			_, err = st.GetMetadata(ctx, "p1")
			require.NoError(t, err)
			_, err = st.GetMetadata(ctx, "p2")
			require.ErrorIs(t, err, blob.ErrBlobNotFound)
			require.NoError(t, st.ListBlobs(ctx, "", func(blob.Metadata) error { return nil }))
			require.NoError(t, st.DeleteBlob(ctx, "p1"))

			o, err := store.OpenObjects(s, good(), quick())
			require.NoError(t, err)
			require.NoError(t, o.PutIfAbsent(ctx, "small", []byte("x")))
			_, err = o.Get(ctx, "small")
			require.NoError(t, err)

			assert.Equal(t, map[string]map[string]string{
				http.MethodPut: c.write, http.MethodGet: c.read, http.MethodHead: c.read,
				"LIST": {}, http.MethodDelete: {},
			}, asked.seen)
		})
	}
}

func TestEncryptionThatCanNotBeIsRefused(t *testing.T) {
	t.Parallel()

	key := make(settings.CustomerKey, 32)

	for name, c := range map[string]struct {
		encryption settings.Encryption
		plain      bool
		says       string
	}{
		"an unknown algorithm":                {settings.Encryption{Algorithm: "rot13"}, false, `"rot13" is no server-side encryption`},
		"a managed key without management":    {settings.Encryption{Algorithm: settings.EncryptionS3, KMSKeyID: "k"}, false, `server-side encryption is "AES256"`},
		"a managed key and a customer's":      {settings.Encryption{Algorithm: settings.EncryptionKMS, CustomerKey: key}, false, "exclude each other"},
		"a customer key of another size":      {settings.Encryption{CustomerKey: key[:31]}, false, "31 bytes long, expected 32"},
		"an empty customer key":               {settings.Encryption{CustomerKey: settings.CustomerKey{}}, false, "0 bytes long, expected 32"},
		"a customer key that all can read":    {settings.Encryption{CustomerKey: key}, true, "only sent over TLS"},
		"but the server's keys need no TLS":   {settings.Encryption{Algorithm: settings.EncryptionS3}, true, ""},
		"and no encryption at all is allowed": {settings.Encryption{}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := s3Settings("s3.example")
			s.DoNotUseTLS, s.Encryption = c.plain, c.encryption

			err := s.Validate()
			if c.says == "" {
				require.NoError(t, err)
				return
			}

			require.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "[0 0")
		})
	}
}
