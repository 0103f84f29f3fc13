package cluster

import (
	"fmt"
	"path/filepath"
)

// pauseImage holds the network namespace of a pod; see images.go.
const pauseImage = "estiba.test/pause:1"

func (c Config) nodeFile(n Node, name string) string {
	return filepath.Join(c.nodeDir(n.Name), "config", name)
}

// startedFile was last written when the node was started.
func (c Config) startedFile(n Node) string { return filepath.Join(c.nodeDir(n.Name), "started") }

// cgroup is the cgroup, relative to the hierarchy's root, under which everything of a node's pods lies.
func (c Config) cgroup() string { return "/" + c.Name }

// writeNodeFiles writes the configuration files of a node's programs.
func (c Config) writeNodeFiles(n Node) error {
	files := map[string]string{
		"containerd.toml":      containerdConfig(),
		"kubelet.yaml":         c.kubeletConfig(n),
		"kube-proxy.yaml":      c.kubeProxyConfig(),
		"audit.yaml":           c.auditPolicy(),
		"cni/10-pods.conflist": c.cniConfig(n),
		// Nothing beyond the cluster can be resolved: CoreDNS has no upstream either.
		"resolv.conf": "",
	}
	for name, text := range files {
		if err := writeFile(c.nodeFile(n, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// containerdConfig: a machine without CAP_SYS_RESOURCE refuses negative oom scores, hence restrict_oom_score_adj.
func containerdConfig() string {
	return fmt.Sprintf(`version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
`, pauseImage)
}

// kubeletConfig: the node's disk and memory are shared with everything else on the machine, so eviction
// and image collection only start when next to nothing is left.
func (c Config) kubeletConfig(n Node) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[1]s}
authorization: {mode: Webhook}
tlsCertFile: %[2]s.crt
tlsPrivateKeyFile: %[2]s.key
clusterDomain: cluster.local
clusterDNS: [%[3]s]
resolvConf: %[4]s
containerRuntimeEndpoint: unix://%[5]s
cgroupDriver: cgroupfs
cgroupRoot: %[6]s
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard:
  memory.available: 100Mi
  nodefs.available: 1%%
  nodefs.inodesFree: 1%%
  imagefs.available: 1%%
nodeStatusUpdateFrequency: 5s
maxPods: 200
%[7]s`, c.pki("ca.crt"), c.pki("kubelet-server-"+n.Name), c.Network.DNS, c.nodeFile(n, "resolv.conf"), containerdSocket, c.cgroup()+"/"+n.Name, c.taints(n))
}

func (c Config) taints(n Node) string {
	if n.Name == c.Nodes[0].Name {
		return ""
	}
	return "registerWithTaints: [{key: " + SecondTaint + ", effect: NoSchedule}]\n"
}

func (c Config) kubeProxyConfig() string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
mode: nftables
clusterCIDR: %s
detectLocalMode: ClusterCIDR
oomScoreAdj: 0
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, c.pki("proxy.kubeconfig"), c.Network.PodCIDR)
}

// auditPolicy has the API server note what a service account of Velero's namespace asks for, without the content;
// not Velero's own, which is an administrator.
func (c Config) auditPolicy() string {
	account := "system:serviceaccount:" + c.Velero.Namespace + ":"
	return fmt.Sprintf(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: [%[1]svelero, %[1]sdefault]
  - level: Metadata
    userGroups: ["system:serviceaccounts:%[2]s"]
  - level: None
`, account, c.Velero.Namespace)
}

// cniConfig returns each pod a routed link of its own. With a bridge, replies between two pods of one
// node would bypass the translation of ClusterIPs where the kernel has no br_netfilter.
func (c Config) cniConfig(n Node) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, n.PodCIDR)
}
