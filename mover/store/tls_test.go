package store_test

import (
	"context"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	kopias3 "github.com/kopia/kopia/repo/blob/s3"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// overTLS puts TLS before a server, and returns its address and the certificate of its authority.
func overTLS(t *testing.T, address string) (secure string, ca []byte) {
	t.Helper()

	server := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: address})
		r.Out.Host = r.In.Host // it is part of the signature
	}})
	t.Cleanup(server.Close)

	ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})

	return strings.TrimPrefix(server.URL, "https://"), ca
}

func TestAnS3StoreBehindACertificateOfOnesOwn(t *testing.T) {
	t.Parallel()

	address, ca := overTLS(t, gateway(t))

	for name, c := range map[string]struct {
		change func(s *settings.Settings)
		says   string
	}{
		"its authority is given":     {change: func(s *settings.Settings) { s.CACert = ca }},
		"verification is turned off": {change: func(s *settings.Settings) { s.InsecureSkipTLSVerify = true }},
		"its authority is not given": {change: func(*settings.Settings) {}, says: "the store's certificate is not trusted"},
		"the name is not in it": {change: func(s *settings.Settings) {
			s.CACert = ca
			s.Endpoint = strings.Replace(address, "127.0.0.1", "localhost", 1)
		}, says: "the store's certificate is not trusted"},
		"what is given is not in PEM": {change: func(s *settings.Settings) { s.CACert = []byte("MIIC") }, says: "hold none in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := s3Settings(address)
			s.DoNotUseTLS = false
			c.change(&s)

			begun := time.Now()
			err := writeAndRead(t, s)

			if c.says == "" {
				require.NoError(t, err)

				return
			}

			require.ErrorContains(t, err, c.says)
			require.Contains(t, []engine.Code{engine.CodeStoreUnavailable, engine.CodeInvalidRequest}, engine.CodeOf(err))
			require.Less(t, time.Since(begun), 30*time.Second, "no waiting mends it")
		})
	}
}

func TestTheOtherSchemeIsNamedAtOnce(t *testing.T) {
	t.Parallel()

	plain := gateway(t)
	secure, _ := overTLS(t, plain)

	for name, c := range map[string]struct {
		address string
		noTLS   bool
		says    string
	}{
		"http to a server of TLS that says so":         {secure, true, "it must be https:// (spec.config.s3Url"},
		"http to a server of TLS that only speaks TLS": {alerts(t), true, "it must be https:// (spec.config.s3Url"},
		"https to a server without TLS":                {plain, false, "it must be http:// (spec.config.s3Url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := s3Settings(c.address)
			s.DoNotUseTLS = c.noTLS

			st, err := store.Open(t.Context(), s, good(), "plugins/estiba/repositories/ns/id", store.Options{})
			require.NoError(t, err)

			// All work begins with a look into the repository.
			begun := time.Now()
			_, err = read(t.Context(), st, "kopia.repository")
			require.ErrorContains(t, err, c.says)
			require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err))

			require.Less(t, time.Since(begun), 30*time.Second, "no waiting mends it")

			objects, err := store.OpenObjects(s, good(), store.Options{})
			require.NoError(t, err)

			_, err = objects.List(t.Context(), "backups")
			require.ErrorContains(t, err, c.says)
		})
	}
}

// alerts is a server that answers what is no TLS as OpenSSL does: with an alert, and nothing else.
func alerts(t *testing.T) (address string) {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })

	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}

			_, _ = conn.Read(make([]byte, 1<<10))
			_, _ = conn.Write([]byte("\x15\x03\x01\x00\x02\x02\x16"))
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()

	return l.Addr().String()
}

func TestABucketOfNoValidNameIsRefusedAtOnce(t *testing.T) {
	t.Parallel()

	for _, bucket := range []string{"ab", "UPPER_case/", "192.168.0.1", strings.Repeat("x", 64)} {
		s := s3Settings("127.0.0.1:1")
		s.Bucket = bucket

		_, err := store.Open(t.Context(), s, good(), "plugins/estiba/repositories/ns/id", store.Options{Place: "bucket of location default"})
		require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), bucket)
		require.ErrorContains(t, err, "spec.objectStorage.bucket")
		require.ErrorContains(t, err, "location default")

		_, err = store.OpenObjects(s, good(), store.Options{})
		require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), bucket)
	}
}

// writeAndRead uses a store with its ordinary bounds.
func writeAndRead(t *testing.T, s settings.Settings) error {
	t.Helper()

	st, err := store.Open(t.Context(), s, good(), "plugins/estiba/repositories/tls/"+strings.ReplaceAll(t.Name(), "/", "-"), store.Options{})
	if err != nil {
		return err
	}

	content := noise(100 << 10)
	if err := st.PutBlob(t.Context(), "p1", store.Memory(content), blob.PutOptions{}); err != nil {
		return err
	}

	got, err := read(t.Context(), st, "p1")
	require.Equal(t, content, got)

	return err
}

// What is kept can be read without Estiba: by kopia's own storage for S3.
func TestStockKopiaReadsWhatWasWrittenToS3(t *testing.T) {
	t.Parallel()

	address := gateway(t)
	ours := openS3(t, address, good(), quick())
	content := map[blob.ID][]byte{"kopia.repository": noise(1000), "p0123456789abcdef-s1": noise(3 << 20), "q1-s2": noise(10), "empty": {}}

	for id, c := range content {
		require.NoError(t, ours.PutBlob(t.Context(), id, store.Memory(c), blob.PutOptions{}))
	}

	theirs, err := kopias3.New(t.Context(), &kopias3.Options{
		BucketName: bucket, Prefix: "cluster/" + folder + "/", Endpoint: address, DoNotUseTLS: true,
		AccessKeyID: accessKey, SecretAccessKey: secretKey, Region: "us-east-1",
	}, false)
	require.NoError(t, err)

	defer theirs.Close(context.WithoutCancel(t.Context()))

	listed := map[blob.ID]int64{}

	require.NoError(t, theirs.ListBlobs(t.Context(), "", func(m blob.Metadata) error {
		listed[m.BlobID] = m.Length

		return nil
	}))
	require.Len(t, listed, len(content))

	for id, c := range content {
		require.Equal(t, int64(len(c)), listed[id], id)

		got, err := read(t.Context(), theirs, id)
		require.NoError(t, err, id)
		require.Len(t, got, len(c), id)
		require.Equal(t, string(c), string(got), id)
	}

	// And the other way round.
	require.NoError(t, theirs.PutBlob(t.Context(), "n1", store.Memory("theirs"), blob.PutOptions{}))

	got, err := read(t.Context(), ours, "n1")
	require.NoError(t, err)
	require.Equal(t, "theirs", string(got))
}
