package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// authority signs the cluster's certificates. It lives only as long as the state folder.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  time.Time
}

// identity is one certificate: a server has names and addresses, a client has a user and groups.
type identity struct {
	file   string
	user   string
	groups []string
	names  []string
	addrs  []net.IP
}

const certificateLife = 10 * 365 * 24 * time.Hour

// writePKI makes the CA, all certificates and kubeconfigs, once: the last file written tells that they are whole.
func (c Config) writePKI(now time.Time) error {
	done := c.pki("complete")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	if err := ca.writeTo(c.pki("ca")); err != nil {
		return err
	}
	for _, id := range c.identities() {
		if err := ca.issue(filepath.Join(c.Dir, "pki", id.file), id); err != nil {
			return err
		}
		if id.user == "" || len(id.names) > 0 {
			continue
		}
		if err := writeFile(c.pki(id.file+".kubeconfig"), c.kubeconfig(id), 0o600); err != nil {
			return err
		}
	}
	return writeFile(done, nil, 0o600)
}

func (c Config) identities() []identity {
	first := c.Network.ServiceCIDR.Addr().Next()
	ids := []identity{
		{
			file: "apiserver", user: "kube-apiserver",
			names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			addrs: []net.IP{ip(c.Nodes[0].Address), ip(first), net.IPv4(127, 0, 0, 1)},
		},
		{file: "service-accounts", names: []string{"service-accounts"}},
		{file: "admin", user: "admin", groups: []string{"system:masters"}},
		{file: "apiserver-kubelet-client", user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		{file: "controller-manager", user: "system:kube-controller-manager"},
		{file: "scheduler", user: "system:kube-scheduler"},
		{file: "proxy", user: "system:kube-proxy"},
	}
	for _, n := range c.Nodes {
		ids = append(ids,
			identity{file: "kubelet-" + n.Name, user: "system:node:" + n.Name, groups: []string{"system:nodes"}},
			identity{file: "kubelet-server-" + n.Name, names: []string{n.Name}, addrs: []net.IP{ip(n.Address)}},
		)
	}
	return ids
}

func ip(a netip.Addr) net.IP { return net.IP(a.AsSlice()) }

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "estiba-test-ca"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the CA's certificate: %w", err)
	}
	return &authority{cert: cert, key: key, now: now}, nil
}

func (a *authority) writeTo(base string) error { return writePair(base, a.cert.Raw, a.key) }

// issue writes base.crt and base.key.
func (a *authority) issue(base string, id identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", id.file, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("make the serial number of %s: %w", id.file, err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: id.user, Organization: id.groups},
		NotBefore: a.now.Add(-time.Hour), NotAfter: a.now.Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    id.names, IPAddresses: id.addrs,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", id.file, err)
	}
	return writePair(base, der, key)
}

func writePair(base string, der []byte, key crypto.Signer) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key %s: %w", base, err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeFile(base+".crt", cert, 0o644); err != nil {
		return err
	}
	return writeFile(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

func (c Config) kubeconfig(id identity) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority: %[3]s
users:
- name: %[4]s
  user:
    client-certificate: %[5]s.crt
    client-key: %[5]s.key
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[4]s
current-context: %[1]s
`, c.Name, c.APIServer(), c.pki("ca.crt"), id.file, c.pki(id.file))
}
