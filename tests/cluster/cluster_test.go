package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func testConfig(t *testing.T) Config {
	t.Helper()
	env := map[string]string{"ESTIBA_CLUSTER_DIR": filepath.Join(t.TempDir(), "test-cluster"), "ESTIBA_CACHE": t.TempDir()}
	return DefaultConfig(func(name string) string { return env[name] })
}

func TestDefaultConfig(t *testing.T) {
	t.Parallel()
	c := DefaultConfig(func(string) string { return "" })
	require.NoError(t, c.Validate())
	assert.Equal(t, "/var/lib/estiba-cluster", c.Dir)
	assert.Equal(t, "/var/cache/estiba", c.CacheDir)

	other := testConfig(t)
	require.NoError(t, other.Validate())
	assert.Equal(t, "test-cluster", other.Name, "another state folder is another cluster")
	assert.NotEqual(t, c.cgroup(), other.cgroup())
	assert.NotEqual(t, c.initArgs("node-1"), other.initArgs("node-1"))
}

func TestAClusterWithTheBucketOfAnotherSharesNothingElseWithIt(t *testing.T) {
	t.Parallel()
	host, guest := testConfig(t), testConfig(t)
	_, err := guest.WithBucketOf(host.Dir)
	require.ErrorIs(t, err, ErrDown)

	require.NoError(t, host.save())
	guest, err = guest.WithBucketOf(host.Dir)
	require.NoError(t, err)
	require.NoError(t, guest.Validate())
	assert.Equal(t, host.S3URL(), guest.S3URL())
	assert.Equal(t, host.BucketDir(), guest.BucketDir())
	assert.NotEqual(t, host.Dir, guest.Dir)

	require.Len(t, guest.Nodes, 1)
	assert.False(t, netip.PrefixFrom(host.Nodes[0].Address, host.Network.PrefixLength).Contains(guest.Nodes[0].Address), "both must know the way to the other")
	assert.False(t, host.Network.PodCIDR.Overlaps(guest.Network.PodCIDR))
	assert.True(t, guest.Network.ServiceCIDR.Contains(guest.Network.DNS))

	for _, p := range guest.components(guest.Nodes[0]) {
		assert.NotEqual(t, "s3", p.Name)
	}
	install := guest.veleroInstall()
	assert.Contains(t, install, "--no-default-backup-location")
	assert.NotContains(t, strings.Join(install, " "), "--bucket")

	require.NoError(t, guest.save())
	_, err = testConfig(t).WithBucketOf(guest.Dir)
	require.ErrorIs(t, err, ErrConfig, "a bucket is that of one cluster")
	assert.ErrorIs(t, guest.WithNodes(2).Validate(), ErrConfig)
}

func TestValidateNamesTheSetting(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"a name with a slash":                      {func(c *Config) { c.Name = "a/b" }, `name "a/b"`},
		"a namespace in capitals":                  {func(c *Config) { c.Velero.Namespace = "Velero" }, `"Velero"`},
		"a relative state folder":                  {func(c *Config) { c.Dir = "state" }, `"state"`},
		"no node":                                  {func(c *Config) { c.Nodes = nil }, "no node"},
		"a DNS address outside of the services":    {func(c *Config) { c.Network.DNS = netip.MustParseAddr("10.1.1.1") }, "10.1.1.1"},
		"a node's pods outside of the pod network": {func(c *Config) { c.Nodes[0].PodCIDR = netip.MustParsePrefix("10.9.0.0/24") }, "node-1"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			tc.change(&c)
			err := c.Validate()
			require.ErrorIs(t, err, ErrConfig)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestSettingsAreReadBackAsTheyWereSaved(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	_, err := Load(c.Dir)
	require.ErrorIs(t, err, ErrDown)
	require.NoError(t, c.save())
	got, err := Load(c.Dir)
	require.NoError(t, err)
	assert.Equal(t, c, got)
}

func TestCertificatesAreTrusted(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, c.writePKI(now))
	ca, err := os.ReadFile(c.pki("ca.crt"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	for _, id := range c.identities() {
		pair, err := tls.LoadX509KeyPair(c.pki(id.file+".crt"), c.pki(id.file+".key"))
		require.NoError(t, err, id.file)
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		require.NoError(t, err, id.file)
	}
	server, err := tls.LoadX509KeyPair(c.pki("apiserver.crt"), c.pki("apiserver.key"))
	require.NoError(t, err)
	for _, host := range []string{"10.43.0.1", "10.45.0.1", "kubernetes.default.svc"} {
		require.NoError(t, server.Leaf.VerifyHostname(host), host)
	}

	require.NoError(t, c.writePKI(now.Add(time.Hour)))
	again, err := os.ReadFile(c.pki("ca.crt"))
	require.NoError(t, err)
	assert.Equal(t, ca, again, "a second start keeps the authority, or every client would be locked out")
}

func TestKubeconfigsPointToTheAPIServer(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	require.NoError(t, c.writePKI(time.Now()))
	for _, file := range []string{c.Kubeconfig(), c.pki("kubelet-node-1.kubeconfig"), c.pki("proxy.kubeconfig")} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var parsed struct {
			Clusters []struct{ Cluster struct{ Server string } }
		}
		require.NoError(t, yaml.Unmarshal(text, &parsed), file)
		require.Len(t, parsed.Clusters, 1)
		assert.Equal(t, "https://10.43.0.1:6443", parsed.Clusters[0].Cluster.Server)
	}
}

func TestNodeFilesParse(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	for i, n := range c.Nodes {
		t.Run(n.Name, func(t *testing.T) {
			t.Parallel()
			checkNodeFiles(t, c, n)
			text, err := os.ReadFile(c.nodeFile(n, "kubelet.yaml"))
			require.NoError(t, err)
			assert.Equal(t, i > 0, strings.Contains(string(text), SecondTaint), "pods go to the first node")
		})
	}
}

func checkNodeFiles(t *testing.T, c Config, n Node) {
	t.Helper()
	require.NoError(t, c.writeNodeFiles(n))
	for name, want := range map[string]string{"kubelet.yaml": "KubeletConfiguration", "kube-proxy.yaml": "KubeProxyConfiguration", "audit.yaml": "Policy"} {
		text, err := os.ReadFile(c.nodeFile(n, name))
		require.NoError(t, err)
		var parsed struct{ Kind, CgroupRoot string }
		require.NoError(t, yaml.UnmarshalStrict(text, &map[string]any{}), name)
		require.NoError(t, yaml.Unmarshal(text, &parsed), name)
		assert.Equal(t, want, parsed.Kind)
	}
	text, err := os.ReadFile(c.nodeFile(n, "cni/10-pods.conflist"))
	require.NoError(t, err)
	assert.True(t, json.Valid(text))
	assert.Contains(t, string(text), n.PodCIDR.String())
}

func TestManifestsParse(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	kinds := map[string]int{}
	for _, name := range []string{"dns.yaml", "storage.yaml"} {
		text, err := c.manifest(name)
		require.NoError(t, err)
		for _, document := range strings.Split(string(text), "\n---\n") {
			var object struct {
				Kind          string
				ReclaimPolicy string
				Data          map[string]string
			}
			require.NoError(t, yaml.UnmarshalStrict([]byte(document), &map[string]any{}), document)
			require.NoError(t, yaml.Unmarshal([]byte(document), &object))
			require.NotEmpty(t, object.Kind, document)
			kinds[object.Kind+object.ReclaimPolicy]++
			if paths, ok := object.Data["config.json"]; ok {
				assert.True(t, json.Valid([]byte(paths)), paths)
				assert.Contains(t, paths, c.nodeDir("node-1"))
			}
		}
	}
	assert.Equal(t, 1, kinds["StorageClassDelete"])
	assert.Equal(t, 1, kinds["StorageClassRetain"])
	assert.Equal(t, 2, kinds["Deployment"])
}

func TestVeleroIsInstalledAsAUserWould(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.Velero.Namespace = "backup-system"
	plain := c.veleroInstall()
	assert.Contains(t, plain, "--namespace=backup-system")
	assert.Contains(t, plain, "--backup-location-config=region=us-east-1,s3ForcePathStyle=true,s3Url=http://10.43.0.1:9000")
	assert.NotContains(t, plain, "--use-node-agent")
	c.Velero.FSB = true
	assert.Contains(t, c.veleroInstall(), "--use-node-agent")
}

func TestOnlyTheFirstNodeCarriesTheControlPlane(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	names := func(n Node) (all []string) {
		for _, p := range c.components(n) {
			all = append(all, p.Name)
		}
		return all
	}
	assert.Subset(t, names(c.Nodes[0]), []string{"etcd", "kube-apiserver", "s3", "kubelet"})
	assert.ElementsMatch(t, []string{"containerd", "kubelet", "kube-proxy"}, names(c.Nodes[1]))
}

func TestInsideEnvironmentPutsTheClustersProgramsFirst(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	got := c.insideEnvironment([]string{"PATH=/opt/bin", "KUBECONFIG=/home/me/production", "LANG=C"})
	assert.ElementsMatch(t, []string{
		"LANG=C", "PATH=" + c.binDir() + ":/opt/bin", "KUBECONFIG=" + c.Kubeconfig(), "VELERO_NAMESPACE=velero",
		insideVariable + "=" + c.Dir,
	}, got)
}

func TestCheckSaysEverythingThatIsMissing(t *testing.T) {
	t.Parallel()
	fit := func() Machine {
		return Machine{
			OS: "linux", Arch: "amd64", Namespaces: true, Distribution: []string{"debian"}, HasApt: true, Go: "/usr/bin/go",
			MissingPackages: []string{"runc"}, Disks: []Disk{{Folder: "/var", For: "the first build", Free: 20 << 30, Needed: 11 << 30}},
		}
	}
	assert.Empty(t, Check(fit()), "a package that apt-get can install is no problem")
	tests := map[string]struct {
		change     func(*Machine)
		what, mend string
	}{
		"not root":             {func(m *Machine) { m.UID = 1000 }, "not root", "sudo"},
		"root in a container":  {func(m *Machine) { m.Namespaces = false }, "may not make", "privileged"},
		"no Go":                {func(m *Machine) { m.Go = "" }, "no go command", "https://go.dev/doc/install"},
		"another processor":    {func(m *Machine) { m.Arch = "s390x" }, "s390x", "another machine"},
		"another system":       {func(m *Machine) { m.OS = "darwin" }, "darwin", "Debian"},
		"another distribution": {func(m *Machine) { m.Distribution = []string{"fedora"} }, "runc", "install them"},
		"too little space":     {func(m *Machine) { m.Disks[0].Free = 3 << 30 }, "/var has 3.0 GiB free, the first build needs 11.0 GiB", "ESTIBA_CACHE"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := fit()
			tc.change(&m)
			problems := Check(m)
			require.Len(t, problems, 1)
			assert.Contains(t, problems[0].What, tc.what)
			assert.Contains(t, problems[0].Mend, tc.mend)
		})
	}
	assert.Len(t, Check(Machine{OS: "linux", Arch: "amd64", UID: 5}), 2, "all problems at once")
}

func TestDistributionKnowsDerivatives(t *testing.T) {
	t.Parallel()
	got := distribution(strings.NewReader("NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"))
	assert.Equal(t, []string{"linuxmint", "ubuntu", "debian"}, got)
}

func TestProgressShowsElapsedTimeAndWhatIsLeft(t *testing.T) {
	t.Parallel()
	clock := time.Unix(0, 0)
	var out bytes.Buffer
	p := newProgress(&out, func() time.Time { return clock })
	clock = clock.Add(83 * time.Second)
	p.step("building kubelet", 14*time.Second, 2*time.Minute)
	p.step("assembling images", 0, 0)
	assert.Equal(t, "[  1:23] building kubelet (about 14s, then 2m0s more)\n[  1:23] assembling images\n", out.String())
}

func TestPodsFromBeforeANodesStartDoNotCount(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 10, 0, 0, 500, time.UTC)
	pod := func(state string) []byte {
		return []byte(`{"items":[{"metadata":{"namespace":"n","name":"p"},"status":{"containerStatuses":[{"state":` + state + `}]}}]}`)
	}
	assert.NoError(t, checkPods(pod(`{"running":{"startedAt":"2030-01-01T10:00:00Z"}}`), start), "the API has no fractions of seconds")
	assert.NoError(t, checkPods(pod(`{"waiting":{"reason":"CrashLoopBackOff"}}`), start))
	require.ErrorContains(t, checkPods(pod(`{"running":{"startedAt":"2030-01-01T09:59:59Z"}}`), start), "n/p")
	assert.Error(t, checkPods([]byte("no"), start))
}

func TestEndingsFindsTheLastWords(t *testing.T) {
	t.Parallel()
	times, last := endings("starting\nbad flag\n" + endMark + "x (exit status 1) and is started again\nstarting\nbad flag 2\n" + endMark + "x\n")
	assert.Equal(t, 2, times)
	assert.Equal(t, "bad flag 2", last)
	times, _ = endings("all is well\n")
	assert.Zero(t, times)
}

func TestRemoveTreeRemovesFromTheLeavesUp(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "group")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "a", "b"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "c"), 0o755))
	require.NoError(t, removeTree(root))
	assert.NoDirExists(t, root)
	assert.NoError(t, removeTree(root), "gone already is fine")
}

func TestDownOfNothingIsFine(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	var out bytes.Buffer
	require.NoError(t, Down(t.Context(), c, &out))
	assert.Contains(t, out.String(), c.CacheDir)
	assert.ErrorIs(t, Status(t.Context(), c, &out), ErrDown)
}
