package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// waitFor waits until something listens on an address such as "tcp 10.0.0.1:80", or until a GET of
// "https URL" succeeds; false means the context ended.
func (c Config) waitFor(ctx context.Context, address string) bool {
	network, target, _ := strings.Cut(address, " ")
	for ctx.Err() == nil {
		err := c.probe(ctx, network, target)
		if err == nil {
			return true
		}
		pause(ctx, 50*time.Millisecond)
	}
	return false
}

func (c Config) probe(ctx context.Context, network, target string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if network == "https" {
		return c.get(ctx, target)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, target)
	if err != nil {
		return err
	}
	return conn.Close()
}

// get asks for a URL of the API server that anybody may read.
func (c Config) get(ctx context.Context, url string) error {
	ca, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
