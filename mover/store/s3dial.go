package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

const (
	defaultS3Endpoint = "s3.amazonaws.com"
	// defaultRegion is what servers other than Amazon's expect when no region was set.
	defaultRegion = "us-east-1"
	// sourceTimeout bounds one reading of credentials.
	sourceTimeout = 30 * time.Second
	// renewBefore is how long before they expire credentials are asked for anew: as
	// long as an upload of one blob may well take on a slow line.
	renewBefore = 5 * time.Minute
)

// dialS3 makes a client. It does not connect: the first request does.
func dialS3(s settings.Settings, source settings.Source, now func() time.Time) (*minio.Core, *renewingProvider, *dated, error) {
	if err := s3utils.CheckValidBucketName(s.Bucket); err != nil {
		return nil, nil, nil, engine.Errorf(engine.CodeInvalidRequest, "bucket %q (spec.objectStorage.bucket of the location): %w", s.Bucket, err)
	}

	transport, err := Transport(s)
	if err != nil {
		return nil, nil, nil, err
	}

	dated := &dated{transport: transport, now: now}
	renewer := &renewingProvider{source: source, now: now}
	renewer.credentials = credentials.New(renewer)

	endpoint, region := s.Endpoint, s.Region
	if endpoint == "" {
		endpoint = defaultS3Endpoint
	} else if region == "" {
		region = defaultRegion
	}

	lookup := minio.BucketLookupPath
	if !s.PathStyle && inHost(s, endpoint) {
		lookup = minio.BucketLookupDNS
	}

	core, err := minio.NewCore(endpoint, &minio.Options{
		Creds: renewer.credentials, Secure: !s.DoNotUseTLS, Region: region, Transport: dated,
		BucketLookup: lookup, MaxRetries: 1, // the retry layer is above
	})
	if err != nil {
		return nil, nil, nil, engine.Errorf(engine.CodeInvalidRequest, "make a client for bucket %s at %q: %w", s.Bucket, endpoint, err)
	}

	core.SetAppInfo("estiba", "v1")

	return core, renewer, dated, nil
}

// inHost reports whether the bucket can be the first part of the host's name, as
// Amazon's SDK has it where nobody asks for anything else: not before the number
// of a host, and not where the name is none of a host, or has parts that no
// wildcard of a certificate covers.
func inHost(s settings.Settings, endpoint string) bool {
	host := endpoint
	if h, _, err := net.SplitHostPort(endpoint); err == nil {
		host = h
	}

	switch {
	case net.ParseIP(strings.Trim(host, "[]")) != nil, net.ParseIP(s.Bucket) != nil:
		return false
	case strings.ToLower(s.Bucket) != s.Bucket, strings.Contains(s.Bucket, "_"):
		return false
	default:
		return s.DoNotUseTLS || !strings.Contains(s.Bucket, ".")
	}
}

// Transport is how a store is spoken to, trusting whom its settings trust. It
// speaks HTTP/1.1 over many connections, which moves more bytes than one
// connection of HTTP/2, and never lets a proxy's compression change lengths.
func Transport(s settings.Settings) (*http.Transport, error) {
	const buffer = 128 << 10

	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: 10 * time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   64,
		DisableCompression:    true,
		ReadBufferSize:        buffer,
		WriteBufferSize:       buffer,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.InsecureSkipTLSVerify}, //nolint:gosec // the location's own setting
	}

	if len(s.CACert) == 0 {
		return t, nil
	}

	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // an image without any
	}

	if !pool.AppendCertsFromPEM(s.CACert) {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "the CA certificates for bucket %s hold none in PEM", s.Bucket)
	}

	t.TLSClientConfig.RootCAs = pool

	return t, nil
}

// renewingProvider hands the credentials of a Source to the client library,
// and asks the source again when it is told that they were refused.
type renewingProvider struct {
	source      settings.Source
	credentials *credentials.Credentials
	now         func() time.Time
	// expires is read and written under the lock of credentials, which calls Retrieve and IsExpired.
	expires time.Time

	mu    sync.Mutex
	count atomic.Uint64
}

// generation counts how often the credentials were given up.
func (p *renewingProvider) generation() uint64 { return p.count.Load() }

// renew discards the credentials of generation seen. Of many requests that
// were refused at the same time, only the first makes the source be asked.
func (p *renewingProvider) renew(seen uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.count.Load() == seen {
		p.count.Add(1)
		p.credentials.Expire()
	}

	return true
}

// RetrieveWithCredContext asks the source.
func (p *renewingProvider) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return p.Retrieve()
}

// Retrieve asks the source.
func (p *renewingProvider) Retrieve() (credentials.Value, error) {
	// The client library gives no context here, and shares the answer between requests.
	ctx, cancel := context.WithTimeout(context.Background(), sourceTimeout)
	defer cancel()

	c, err := p.source.Credentials(ctx)
	if err != nil {
		var e *engine.Error
		if errors.As(err, &e) {
			return credentials.Value{}, fmt.Errorf("read the store's credentials: %w", err)
		}

		return credentials.Value{}, engine.Errorf(engine.CodeCredentialsInvalid, "read the store's credentials: %w", err)
	}

	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return credentials.Value{}, engine.Errorf(engine.CodeCredentialsInvalid, "the store's credentials are empty")
	}

	p.expires = c.Expires

	return credentials.Value{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		SignerType: credentials.SignatureV4,
	}, nil
}

// IsExpired reports whether the credentials are about to expire. For those whose
// time isn't known, only a refusal tells.
func (p *renewingProvider) IsExpired() bool {
	return !p.expires.IsZero() && p.now().After(p.expires.Add(-renewBefore))
}
