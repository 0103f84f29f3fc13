package store_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/store"
)

// hosts stands for the names of a network: requests to names that end with .test come here,
// by way of a proxy. Addresses in numbers are not asked of a proxy.
var hosts namedHosts

type namedHosts struct{ byDomain sync.Map }

// name has requests for a domain, and all below it, go to the handler.
func (n *namedHosts) name(domain string, h http.Handler) { n.byDomain.Store(domain, h) }

// ServeHTTP finds the handler by the end of the host's name.
func (n *namedHosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for host, _, _ := strings.Cut(r.Host, ":"); host != ""; _, host, _ = strings.Cut(host, ".") {
		if h, ok := n.byDomain.Load(host); ok {
			h.(http.Handler).ServeHTTP(w, r)

			return
		}
	}

	http.Error(w, "no such host", http.StatusTeapot)
}

func TestMain(m *testing.M) {
	proxy := httptest.NewServer(&hosts)

	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		if err := os.Setenv(name, proxy.URL); err != nil {
			panic(err)
		}
	}

	os.Exit(m.Run())
}

func TestTheBucketIsInTheHostUnlessPathStyleIsAskedFor(t *testing.T) {
	t.Parallel()

	const path = "/cluster/" + folder + "/p1"

	for name, c := range map[string]struct {
		endpoint, bucket string
		pathStyle, tls   bool
		want             string
	}{
		"by default":                            {endpoint: "a.test", bucket: "data", want: "data.a.test" + path},
		"with a port":                           {endpoint: "b.test:9000", bucket: "data", want: "data.b.test:9000" + path},
		"with a dot in the bucket":              {endpoint: "c.test", bucket: "my.data", want: "my.data.c.test" + path},
		"asked for in the path":                 {endpoint: "d.test", bucket: "data", pathStyle: true, want: "d.test/data" + path},
		"over TLS":                              {endpoint: "e.test", bucket: "data", tls: true, want: "data.e.test:443"},
		"over TLS, with a dot in the bucket":    {endpoint: "f.test", bucket: "my.data", tls: true, want: "f.test:443"},
		"over TLS, asked for in the path":       {endpoint: "g.test", bucket: "data", pathStyle: true, tls: true, want: "g.test:443"},
		"Amazon's, whose regions have a domain": {endpoint: "", bucket: "data", tls: true, want: "data.s3.dualstack.eu-west-1.amazonaws.com:443"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var (
				mu  sync.Mutex
				got string
			)

			s := s3Settings(c.endpoint)
			s.Bucket, s.PathStyle, s.DoNotUseTLS = c.bucket, c.pathStyle, !c.tls

			domain := strings.TrimSuffix(c.endpoint, ":9000")
			if c.endpoint == "" {
				s.Region, domain = "eu-west-1", "amazonaws.com"
			}

			hosts.name(domain, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()

				got = r.Host + r.URL.Path
				w.WriteHeader(http.StatusForbidden)
			}))

			st, err := store.Open(t.Context(), s, good(), folder, store.Options{RetryFor: -1})
			require.NoError(t, err)
			require.Error(t, st.PutBlob(t.Context(), "p1", store.Memory("x"), blob.PutOptions{}))

			mu.Lock()
			defer mu.Unlock()

			require.Equal(t, c.want, got)
		})
	}
}

func TestTheBucketIsInThePathWhereTheHostIsANumber(t *testing.T) {
	t.Parallel()

	var got string

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.Host + r.URL.Path }))
	t.Cleanup(server.Close)

	s := s3Settings(strings.TrimPrefix(server.URL, "http://"))
	s.PathStyle = false

	st, err := store.Open(t.Context(), s, good(), folder, store.Options{RetryFor: -1})
	require.NoError(t, err)
	require.NoError(t, st.PutBlob(t.Context(), "p1", store.Memory("x"), blob.PutOptions{}))
	require.Equal(t, s.Endpoint+"/"+bucket+"/cluster/"+folder+"/p1", got)
}

func TestAnS3StoreWithBucketsInTheHostKeepsTheContract(t *testing.T) {
	t.Parallel()

	address := gateway(t, "--virtual-domain", "hosted.test")
	hosts.name("hosted.test", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: address})
		r.Out.Host = r.In.Host // it is part of the signature
	}})

	s := s3Settings("hosted.test")
	s.PathStyle = false

	st, err := store.Open(context.Background(), s, good(), folder, quick())
	require.NoError(t, err)
	verifyContract(t, st)

	o, err := store.OpenObjects(s, good(), quick())
	require.NoError(t, err)
	require.NoError(t, o.PutIfAbsent(t.Context(), "plugins/estiba/keys/ns/id.json", []byte("one")))
}
