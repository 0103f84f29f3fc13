// Package cluster runs a real Kubernetes with a real Velero on one plain machine, for tests and for
// trying things out: its nodes live in namespaces of their own, nothing of them listens on the machine
// and stopping them leaves nothing behind but the cache of built programs.
//
// The package must not be imported by production code, and it must not know anything of Estiba
// itself: that is installed into the cluster the way a user would do it.
package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
)

// ErrConfig is wrapped by every error about a setting.
var ErrConfig = errors.New("invalid cluster setting")

// Config describes one cluster. Two clusters may run at the same time when their names and folders
// differ; their addresses may be the same, because nobody outside of a cluster sees them, but where one uses
// the other's object store (see WithBucketOf).
type Config struct {
	// Name distinguishes clusters: in cgroup names and in the kubeconfig.
	Name string
	// Dir is the state folder: it is made by up and removed by down. It must not be inside a repository.
	Dir string
	// CacheDir holds the built programs and images; down leaves it.
	CacheDir string
	Network  Network
	// Nodes are the cluster's nodes; the first one carries the control plane and the S3 server, and all pods but
	// those that tolerate SecondTaint.
	Nodes  []Node
	S3     S3
	Velero Velero
}

// Network holds what is common to the nodes.
type Network struct {
	// PrefixLength is the size of the network that the nodes' addresses are in.
	PrefixLength int
	// PodCIDR covers the PodCIDRs of all nodes.
	PodCIDR netip.Prefix
	// ServiceCIDR holds the ClusterIPs, DNS is one of them.
	ServiceCIDR netip.Prefix
	DNS         netip.Addr
	APIPort     int
}

// Node is one machine of the cluster.
type Node struct {
	// Name is its host name and its name in Kubernetes.
	Name    string
	Address netip.Addr
	PodCIDR netip.Prefix
}

// SecondTaint keeps pods off all nodes but the first: the others are there for the pods that want them. They
// start quickly and take little, because they need no images but those of test pods and of Estiba.
const SecondTaint = "estiba.test/second"

// S3 is the object store that runs beside the control plane.
type S3 struct {
	// Of is the state folder of the cluster whose object store this one uses, empty if it runs one of its own.
	Of string
	// Address is where that one's listens; one of its own listens on the first node's.
	Address              netip.Addr
	Port                 int
	Region, Bucket       string
	AccessKey, SecretKey string
}

// Velero says how Velero is installed.
type Velero struct {
	Namespace string
	// FSB also starts Velero's own node-agent.
	FSB bool
}

// DefaultConfig is the cluster that `make cluster-up` starts. The folders can be moved by the variables
// ESTIBA_CLUSTER_DIR and ESTIBA_CACHE of the given environment; another state folder is another cluster, named after it.
func DefaultConfig(getenv func(string) string) Config {
	or := func(name, otherwise string) string {
		if value := getenv(name); value != "" {
			return filepath.Clean(value)
		}
		return otherwise
	}
	dir := or("ESTIBA_CLUSTER_DIR", "/var/lib/estiba-cluster")
	c := Config{
		Name:     filepath.Base(dir),
		Dir:      dir,
		CacheDir: or("ESTIBA_CACHE", "/var/cache/estiba"),
		S3: S3{
			Port: 9000, Region: "us-east-1", Bucket: "velero",
			AccessKey: "estiba-test", SecretKey: "not-a-secret-of-anything",
		},
		Velero: Velero{Namespace: "velero"},
	}
	c.address(ownRange, 2)
	return c
}

// The second numbers of the addresses of a cluster's nodes (10.43.0.0/16); its pods and its services have the next two.
const (
	ownRange   = 43
	guestRange = 46
)

// address sets all addresses of the cluster, for up to 200 nodes.
func (c *Config) address(first byte, nodes int) {
	net := func(second, third byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, third, 0}), bits)
	}
	c.Network = Network{
		PrefixLength: 24,
		PodCIDR:      net(first+1, 0, 16),
		ServiceCIDR:  net(first+2, 0, 16),
		DNS:          netip.AddrFrom4([4]byte{10, first + 2, 0, 10}),
		APIPort:      6443,
	}
	c.Nodes = nil
	for i := 1; i <= min(nodes, 200); i++ {
		c.Nodes = append(c.Nodes, Node{
			Name:    fmt.Sprintf("node-%d", i),
			Address: netip.AddrFrom4([4]byte{10, first, 0, byte(i)}),
			PodCIDR: net(first+1, byte(i), 24),
		})
	}
}

// WithNodes returns the cluster a number of nodes, at most 200, in place of those it has.
func (c Config) WithNodes(count int) Config {
	c.address(ownRange, count)
	return c
}

// WithBucketOf returns the configuration with one node and, in place of an object store of its own, that of the cluster with the state
// folder dir. Its addresses are others than that one's, because the two are linked; Velero gets no storage location. An
// error wraps ErrDown if there is no such cluster. One cluster's object store can be used by one other at a time: the one started last.
func (c Config) WithBucketOf(dir string) (Config, error) {
	host, err := Load(dir)
	if err != nil {
		return Config{}, fmt.Errorf("use another cluster's bucket: %w", err)
	}
	if host.S3.Of != "" {
		return Config{}, fmt.Errorf("%w: the cluster in %s has no bucket of its own, but that of %s", ErrConfig, dir, host.S3.Of)
	}
	c.S3 = host.S3
	c.S3.Of, c.S3.Address = host.Dir, host.Nodes[0].Address
	c.address(guestRange, 1)
	return c, nil
}

// Validate returns an error that wraps ErrConfig and names the setting.
func (c Config) Validate() error {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)
	switch {
	case !label.MatchString(c.Name):
		return fmt.Errorf("%w: name %q: want lower-case letters, digits and dashes", ErrConfig, c.Name)
	case !label.MatchString(c.Velero.Namespace):
		return fmt.Errorf("%w: Velero's namespace %q: want lower-case letters, digits and dashes", ErrConfig, c.Velero.Namespace)
	case !filepath.IsAbs(c.Dir) || !filepath.IsAbs(c.CacheDir):
		return fmt.Errorf("%w: the folders %q and %q must be absolute", ErrConfig, c.Dir, c.CacheDir)
	case len(c.Nodes) == 0:
		return fmt.Errorf("%w: no node", ErrConfig)
	case !c.Network.ServiceCIDR.Contains(c.Network.DNS):
		return fmt.Errorf("%w: DNS address %s is not in %s", ErrConfig, c.Network.DNS, c.Network.ServiceCIDR)
	}
	if c.S3.Of != "" && len(c.Nodes) != 1 {
		return fmt.Errorf("%w: a cluster with another's bucket has one node", ErrConfig)
	}
	for _, n := range c.Nodes {
		if !label.MatchString(n.Name) {
			return fmt.Errorf("%w: node name %q", ErrConfig, n.Name)
		}
		if !c.Network.PodCIDR.Overlaps(n.PodCIDR) || !n.Address.IsValid() {
			return fmt.Errorf("%w: node %s needs an address and a part of %s for its pods", ErrConfig, n.Name, c.Network.PodCIDR)
		}
	}
	return nil
}

// APIServer is the address of the API server, as seen inside the cluster's namespaces.
func (c Config) APIServer() string {
	return fmt.Sprintf("https://%s:%d", c.Nodes[0].Address, c.Network.APIPort)
}

// S3URL is the address of the object store, as seen from nodes and pods.
func (c Config) S3URL() string {
	address := c.Nodes[0].Address
	if c.S3.Of != "" {
		address = c.S3.Address
	}
	return fmt.Sprintf("http://%s:%d", address, c.S3.Port)
}

// Kubeconfig is the path of the administrator's kubeconfig; it only works inside (see Exec).
func (c Config) Kubeconfig() string { return c.pki("admin.kubeconfig") }

// SharedDir is a folder of the machine that all nodes see under the same path: a `local` volume in it can be
// mounted on all of them, as one of a network file system can.
func (c Config) SharedDir() string { return filepath.Join(c.Dir, "shared") }

// BucketDir is the folder of the machine in which the S3 server keeps the bucket's objects as files.
func (c Config) BucketDir() string {
	return filepath.Join(cmp.Or(c.S3.Of, c.Dir), "s3", c.S3.Bucket)
}

// AuditLog is a file with a line of JSON for each request that a part of Estiba made of the API server. It is the
// same path inside.
func (c Config) AuditLog() string {
	return filepath.Join(c.nodeDir(c.Nodes[0].Name), "logs", "audit.jsonl")
}

func (c Config) pki(name string) string     { return filepath.Join(c.Dir, "pki", name) }
func (c Config) binDir() string             { return filepath.Join(c.Dir, "bin") }
func (c Config) file() string               { return filepath.Join(c.Dir, "config.json") }
func (c Config) nodeDir(node string) string { return filepath.Join(c.Dir, "nodes", node) }

func (c Config) logFile(node, component string) string {
	return filepath.Join(c.nodeDir(node), "logs", component+".log")
}

// Load reads the settings of the cluster that was started with this state folder.
func Load(dir string) (Config, error) {
	text, err := os.ReadFile(Config{Dir: dir}.file())
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, fmt.Errorf("%w: there is none in %s", ErrDown, dir)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the cluster's settings: %w", err)
	}
	var c Config
	if err := json.Unmarshal(text, &c); err != nil {
		return Config{}, fmt.Errorf("read the cluster's settings in %s: %w", dir, err)
	}
	return c, nil
}

func (c Config) save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the cluster's settings: %w", err)
	}
	return writeFile(c.file(), text, 0o600)
}

// writeFile writes whole files only: whoever reads one never sees half of it.
func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of %s: %w", path, err)
	}
	if err := os.WriteFile(path+".part", content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
