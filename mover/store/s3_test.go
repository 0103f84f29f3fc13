package store_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

const (
	accessKey = "estiba-test"
	secretKey = "estiba-test-secret"
	bucket    = "backups"
)

// gatewayProgram finds a real S3 server (versitygw).
func gatewayProgram(t *testing.T) string {
	t.Helper()

	binary, err := exec.LookPath("versitygw")
	if found, _ := filepath.Glob("/var/cache/estiba/versitygw-*/bin/versitygw"); err != nil && len(found) > 0 {
		binary, err = found[0], nil
	}

	if err != nil {
		t.Skip("no S3 server: versitygw is neither in PATH nor built below /var/cache/estiba")
	}

	return binary
}

// gateway starts it, with more flags, and returns its address.
func gateway(t *testing.T, flags ...string) string {
	t.Helper()

	binary := gatewayProgram(t)
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, bucket), 0o755))

	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)

	address := free.Addr().String()
	require.NoError(t, free.Close())

	flags = append(flags, "--access", accessKey, "--secret", secretKey, "--port", address, "posix", root)
	server := exec.Command(binary, flags...)
	server.Stdout, server.Stderr = io.Discard, os.Stderr
	require.NoError(t, server.Start())

	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})

	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}

		return err == nil
	}, 20*time.Second, 20*time.Millisecond)

	return address
}

// faulty is a proxy before the server; fault may answer in its place.
type faulty struct {
	address string
	calls   atomic.Int64
	fault   atomic.Pointer[func(w http.ResponseWriter, r *http.Request, call int64) bool]
}

// set makes the faults of all requests from now, which are counted from 1.
func (f *faulty) set(fault func(w http.ResponseWriter, r *http.Request, call int64) bool) {
	f.calls.Store(0)
	f.fault.Store(&fault)
}

func proxied(t *testing.T, address string) *faulty {
	t.Helper()

	f := new(faulty)
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: address})
		r.Out.Host = r.In.Host // it is part of the signature
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := f.fault.Load(); fault != nil && (*fault)(w, r, f.calls.Add(1)) {
			return
		}

		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	f.address = strings.TrimPrefix(server.URL, "http://")

	return f
}

func good() settings.Source {
	return settings.Static{AccessKeyID: accessKey, SecretAccessKey: secretKey}
}

func s3Settings(address string) settings.Settings {
	return settings.Settings{
		Kind: settings.S3, Bucket: bucket, Prefix: "cluster", Endpoint: address,
		Region: "us-east-1", PathStyle: true, DoNotUseTLS: true,
	}
}

func openS3(t *testing.T, address string, source settings.Source, o store.Options) blob.Storage {
	t.Helper()

	st, err := store.Open(context.Background(), s3Settings(address), source, folder, o)
	require.NoError(t, err)

	return st
}

func TestAnS3StoreKeepsTheContract(t *testing.T) {
	t.Parallel()

	address := gateway(t)

	t.Run("directly", func(t *testing.T) {
		t.Parallel()

		st, err := store.Open(context.Background(), s3Settings(address), good(), folder+"-direct", quick())
		require.NoError(t, err)
		verifyContract(t, st)
	})

	t.Run("over a socket, with MD5", func(t *testing.T) {
		t.Parallel()

		s := s3Settings(address)
		s.Checksum = settings.ChecksumMD5
		st, err := store.Open(context.Background(), s, good(), folder+"-broker", quick())
		require.NoError(t, err)
		verifyContract(t, brokered(t, st, store.BrokerOptions{}))
	})
}

// abort cuts the connection.
func abort() { panic(http.ErrAbortHandler) }

func TestFaultsOfAnS3StoreAreRiddenOut(t *testing.T) {
	t.Parallel()

	proxy := proxied(t, gateway(t))

	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request, call int64) bool{
		"503 for some requests": func(w http.ResponseWriter, _ *http.Request, call int64) bool {
			if call <= 4 {
				http.Error(w, "<Error><Code>SlowDown</Code></Error>", http.StatusServiceUnavailable)
			}

			return call <= 4
		},
		"connections that are reset": func(_ http.ResponseWriter, _ *http.Request, call int64) bool {
			if call <= 3 {
				abort()
			}

			return false
		},
		"a stall before the answer": func(_ http.ResponseWriter, r *http.Request, call int64) bool {
			if call == 1 {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}

			return call == 1
		},
		"a body that is cut": func(w http.ResponseWriter, r *http.Request, call int64) bool {
			if r.Method == http.MethodGet && call == 1 {
				w.Header().Set("Content-Length", "100000")
				w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				_, _ = w.Write(make([]byte, 5000))
				abort()
			}

			return false
		},
		"a body that is short and says so": func(w http.ResponseWriter, r *http.Request, call int64) bool {
			if r.Method != http.MethodGet || call != 1 {
				return false
			}

			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			_, _ = w.Write(make([]byte, 5000))

			return true
		},
	} {
		// One after the other: the proxy's faults are of all its requests.
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			client := brokered(t, openS3(t, proxy.address, good(), store.Options{RetryFor: 30 * time.Second, StallAfter: time.Second}), store.BrokerOptions{})
			content := noise(100_000)

			proxy.set(fault)
			require.NoError(t, client.PutBlob(ctx, "p1", store.Memory(content), blob.PutOptions{}))

			proxy.set(fault)

			var out store.Buffer

			require.NoError(t, client.GetBlob(ctx, "p1", 0, int64(len(content)), &out))
			require.True(t, bytes.Equal(content, out.Bytes()))

			proxy.set(fault)
			require.NoError(t, client.VerifyWritten(ctx))
			require.NoError(t, client.Err())
		})
	}
}

func TestALostPutToAnS3StoreIsFound(t *testing.T) {
	t.Parallel()

	proxy := proxied(t, gateway(t))
	proxy.set(func(w http.ResponseWriter, r *http.Request, _ int64) bool {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/p2") {
			return false
		}

		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)

		return true
	})

	ctx := context.Background()
	client := brokered(t, openS3(t, proxy.address, good(), quick()), store.BrokerOptions{})

	for _, id := range []blob.ID{"p1", "p2", "p3"} {
		require.NoError(t, client.PutBlob(ctx, id, store.Memory("content"), blob.PutOptions{}))
	}

	err := client.VerifyWritten(ctx)
	require.Equal(t, engine.CodeStoreLostWrite, engine.CodeOf(err))
	require.ErrorContains(t, err, "1 blobs that it does not have in full, such as [p2]")
}

func TestRefusedCredentialsAreReadAgainOnce(t *testing.T) {
	t.Parallel()

	address := gateway(t)
	ctx := context.Background()

	for name, c := range map[string]struct {
		second settings.Credentials
		fails  bool
	}{
		"and a rotated Secret is taken up":      {settings.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, false},
		"and a wrong secret is named soon":      {settings.Credentials{AccessKeyID: accessKey, SecretAccessKey: "wrong"}, true},
		"and a wrong access key is named soon":  {settings.Credentials{AccessKeyID: "wrong", SecretAccessKey: secretKey}, true},
		"and an empty Secret is named soon too": {settings.Credentials{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var asked atomic.Int64

			source := settings.SourceFunc(func(context.Context) (settings.Credentials, error) {
				if asked.Add(1) == 1 {
					return settings.Credentials{AccessKeyID: "old", SecretAccessKey: "old"}, nil
				}

				return c.second, nil
			})
			client := brokered(t, openS3(t, address, source, store.Options{}), store.BrokerOptions{})
			start := time.Now()
			err := client.PutBlob(ctx, "p1", store.Memory("content"), blob.PutOptions{})

			require.Equal(t, int64(2), asked.Load(), "%v", err)
			require.Less(t, time.Since(start), 20*time.Second)

			if c.fails {
				require.Equal(t, engine.CodeCredentialsInvalid, engine.CodeOf(err))
				require.Equal(t, engine.CodeCredentialsInvalid, engine.CodeOf(client.Err()))
				require.NotContains(t, err.Error(), secretKey)
				require.ErrorIs(t, client.ListBlobs(ctx, "", nil), client.Err())

				return
			}

			require.NoError(t, err)
		})
	}
}

func TestNothingLooksGoneBecauseTheStoreRefuses(t *testing.T) {
	t.Parallel()

	ctx := context.Background()
	address := gateway(t)
	elsewhere := s3Settings(address)
	elsewhere.Bucket = "none-such"

	for name, c := range map[string]struct {
		settings settings.Settings
		source   settings.Source
		code     engine.Code
	}{
		"an unknown key":    {s3Settings(address), settings.Static{AccessKeyID: "unknown", SecretAccessKey: "x"}, engine.CodeCredentialsInvalid},
		"a wrong secret":    {s3Settings(address), settings.Static{AccessKeyID: accessKey, SecretAccessKey: "x"}, engine.CodeCredentialsInvalid},
		"an unknown bucket": {elsewhere, good(), engine.CodeInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			o, err := store.OpenObjects(c.settings, c.source, store.Options{})
			require.NoError(t, err)

			_, err = o.Exists(ctx, "backups/b/velero-backup.json")
			require.Equal(t, c.code, engine.CodeOf(err), "%v", err)

			_, err = o.Get(ctx, "backups/b/velero-backup.json")
			require.Equal(t, c.code, engine.CodeOf(err), "%v", err)

			_, err = o.List(ctx, "backups")
			require.Equal(t, c.code, engine.CodeOf(err), "%v", err)

			st, err := store.Open(ctx, c.settings, c.source, folder, store.Options{})
			require.NoError(t, err)

			_, err = st.GetMetadata(ctx, "kopia.repository")
			require.Equal(t, c.code, engine.CodeOf(err), "%v", err)
			require.Equal(t, c.code, engine.CodeOf(st.DeleteBlob(ctx, "p1")))
		})
	}
}

func TestABucketThatIsNotThereIsNotWaitedFor(t *testing.T) {
	t.Parallel()

	s := s3Settings(gateway(t))
	s.Bucket = "none-such"

	st, err := store.Open(context.Background(), s, good(), folder, store.Options{})
	require.NoError(t, err)

	err = st.ListBlobs(context.Background(), "", func(blob.Metadata) error { return nil })
	require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err))
}

func TestACancelEndsARequestToAStalledS3Store(t *testing.T) {
	t.Parallel()

	started := make(chan struct{}, 8)
	proxy := proxied(t, gateway(t))
	proxy.set(func(_ http.ResponseWriter, r *http.Request, _ int64) bool {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server sees the client go
		started <- struct{}{}
		<-r.Context().Done()

		return true
	})

	client := brokered(t, openS3(t, proxy.address, good(), store.Options{}), store.BrokerOptions{})
	ctx, cancel := context.WithCancel(context.Background())

	go func() {
		<-started
		cancel()
	}()

	start := time.Now()
	err := client.PutBlob(ctx, "p1", store.Memory(noise(1000)), blob.PutOptions{})
	require.Equal(t, engine.CodeCanceled, engine.CodeOf(err))
	require.Less(t, time.Since(start), 20*time.Second)
}

func TestObjectsBesideTheRepositories(t *testing.T) {
	t.Parallel()

	for name, open := range map[string]func(t *testing.T) settings.Settings{
		"in a folder": func(t *testing.T) settings.Settings {
			t.Helper()

			return settings.Settings{Kind: settings.Filesystem, Path: t.TempDir(), Prefix: "cluster"}
		},
		"in a bucket": func(t *testing.T) settings.Settings { t.Helper(); return s3Settings(gateway(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := open(t)
			o, err := store.OpenObjects(s, good(), quick())
			require.NoError(t, err)
			verifyObjects(t, o)

			s.ReadOnly = true
			o, err = store.OpenObjects(s, good(), quick())
			require.NoError(t, err)
			require.Equal(t, engine.CodeStoreReadOnly, engine.CodeOf(o.Put(context.Background(), "a/b", nil)))
		})
	}
}

func verifyObjects(t *testing.T, o *store.Objects) {
	t.Helper()

	const key = "plugins/estiba/keys/ns/id.json"

	ctx := context.Background()

	l, err := o.List(ctx, "plugins/estiba/keys/")
	require.NoError(t, err)
	require.Empty(t, l.Files)
	require.Empty(t, l.Folders)

	_, err = o.Get(ctx, key)
	require.ErrorIs(t, err, store.ErrObjectNotFound)

	there, err := o.Exists(ctx, key)
	require.NoError(t, err)
	require.False(t, there)

	require.NoError(t, o.PutIfAbsent(ctx, key, []byte("one")))
	require.NoError(t, o.PutIfAbsent(ctx, key, []byte("one")), "the same again is no conflict")
	require.ErrorIs(t, o.PutIfAbsent(ctx, key, []byte("two")), store.ErrObjectExists)

	content, err := o.Get(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "one", string(content))

	require.NoError(t, o.Put(ctx, key, []byte("three")))
	content, err = o.Get(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "three", string(content))

	there, err = o.Exists(ctx, key)
	require.NoError(t, err)
	require.True(t, there)

	require.NoError(t, o.Put(ctx, "plugins/estiba/keys/ns-2/a.json", []byte("x")))
	l, err = o.List(ctx, "plugins/estiba/keys")
	require.NoError(t, err)
	require.Equal(t, store.Listing{Folders: []string{"ns", "ns-2"}}, l)

	l, err = o.List(ctx, "plugins/estiba/keys/ns")
	require.NoError(t, err)
	require.Equal(t, store.Listing{Files: []string{"id.json"}}, l)

	l, err = o.List(ctx, "")
	require.NoError(t, err)
	require.Equal(t, []string{"plugins"}, l.Folders)

	for _, bad := range []string{"", "../x", "a/../../x", "/x", "a//b", "x/"} {
		_, err = o.Get(ctx, bad)
		require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), bad)
	}

	_, err = o.List(ctx, "..")
	require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err))
}

func TestAServerThatListsSomethingElseIsRefused(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<ListBucketResult><Contents><Key>x</Key><Size>1</Size></Contents></ListBucketResult>")
	}))
	t.Cleanup(server.Close)

	address := strings.TrimPrefix(server.URL, "http://")

	err := openS3(t, address, good(), quick()).ListBlobs(t.Context(), "", func(blob.Metadata) error { return nil })
	require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, `gave "x"`)

	o, err := store.OpenObjects(s3Settings(address), good(), quick())
	require.NoError(t, err)

	_, err = o.List(t.Context(), "backups")
	require.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err), "%v", err)
}
