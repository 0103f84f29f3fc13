package cluster

import (
	"fmt"
	"path/filepath"
)

// component is one process that the supervisor of a node keeps running.
type component struct {
	Name string
	Args []string
	// Env is added to the environment.
	Env []string
	// After are addresses ("tcp 10.0.0.1:80", "unix /run/x.sock", "https URL") that must answer before the first start.
	After []string
}

const (
	etcdAddress      = "127.0.0.1:2379"
	containerdSocket = "/run/containerd/containerd.sock"
)

// components lists what runs on a node; the control plane is on the first.
func (c Config) components(n Node) []component {
	var all []component
	if n.Name == c.Nodes[0].Name {
		all = append(all, c.etcd(), c.apiServer(n), c.controllerManager(), c.scheduler())
		if c.S3.Of == "" {
			all = append(all, c.s3())
		}
	}
	return append(all, c.containerd(n), c.kubelet(n), c.kubeProxy(n))
}

func (c Config) program(name string) string { return filepath.Join(c.binDir(), name) }

// apiReady is what everything that talks to the API server waits for. An API server that listens but is
// not ready refuses everybody, and a kubelet that was refused comes back only after most of a minute.
func (c Config) apiReady() string { return "https " + c.APIServer() + "/readyz" }

func (c Config) etcd() component {
	return component{Name: "etcd", Args: []string{
		c.program("etcd"), "--name=etcd", "--data-dir=" + filepath.Join(c.Dir, "etcd"),
		"--listen-client-urls=http://" + etcdAddress, "--advertise-client-urls=http://" + etcdAddress,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=etcd=http://127.0.0.1:2380", "--log-level=warn",
		// The state does not outlive the cluster, so it need not survive a power cut.
		"--unsafe-no-fsync",
	}}
}

func (c Config) apiServer(n Node) component {
	return component{Name: "kube-apiserver", After: []string{"tcp " + etcdAddress}, Args: []string{
		c.program("kube-apiserver"),
		"--advertise-address=" + n.Address.String(), fmt.Sprintf("--secure-port=%d", c.Network.APIPort),
		"--etcd-servers=http://" + etcdAddress,
		"--service-cluster-ip-range=" + c.Network.ServiceCIDR.String(),
		"--client-ca-file=" + c.pki("ca.crt"),
		"--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"),
		"--kubelet-client-certificate=" + c.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + c.pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki("service-accounts.crt"),
		"--service-account-signing-key-file=" + c.pki("service-accounts.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--audit-policy-file=" + c.nodeFile(n, "audit.yaml"), "--audit-log-path=" + c.AuditLog(),
		"--allow-privileged", "--profiling=false",
	}}
}

func (c Config) controllerManager() component {
	kubeconfig := c.pki("controller-manager.kubeconfig")
	return component{Name: "kube-controller-manager", After: []string{c.apiReady()}, Args: []string{
		c.program("kube-controller-manager"),
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--service-account-private-key-file=" + c.pki("service-accounts.key"), "--root-ca-file=" + c.pki("ca.crt"),
		"--cluster-signing-cert-file=" + c.pki("ca.crt"), "--cluster-signing-key-file=" + c.pki("ca.key"),
		"--use-service-account-credentials", "--leader-elect=false", "--profiling=false",
		// The routes between the nodes' pods are static.
		"--allocate-node-cidrs=false",
	}}
}

func (c Config) scheduler() component {
	kubeconfig := c.pki("scheduler.kubeconfig")
	return component{Name: "kube-scheduler", After: []string{c.apiReady()}, Args: []string{
		c.program("kube-scheduler"),
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--leader-elect=false", "--profiling=false",
	}}
}

func (c Config) s3() component {
	return component{
		Name: "s3",
		Args: []string{c.program("versitygw"), "posix", filepath.Dir(c.BucketDir())},
		Env: []string{
			"ROOT_ACCESS_KEY_ID=" + c.S3.AccessKey, "ROOT_SECRET_ACCESS_KEY=" + c.S3.SecretKey,
			"VGW_REGION=" + c.S3.Region, fmt.Sprintf("VGW_PORT=:%d", c.S3.Port), "VGW_QUIET=true",
		},
	}
}

func (c Config) containerd(n Node) component {
	return component{Name: "containerd", Args: []string{
		"containerd", "--config=" + c.nodeFile(n, "containerd.toml"), "--log-level=warn",
	}}
}

func (c Config) kubelet(n Node) component {
	return component{Name: "kubelet", After: []string{c.apiReady(), "unix " + containerdSocket}, Args: []string{
		c.program("kubelet"),
		"--kubeconfig=" + c.pki("kubelet-"+n.Name+".kubeconfig"), "--config=" + c.nodeFile(n, "kubelet.yaml"),
		"--hostname-override=" + n.Name, "--node-ip=" + n.Address.String(), "--v=2",
	}}
}

func (c Config) kubeProxy(n Node) component {
	return component{Name: "kube-proxy", After: []string{c.apiReady()}, Args: []string{
		c.program("kube-proxy"), "--config=" + c.nodeFile(n, "kube-proxy.yaml"), "--hostname-override=" + n.Name,
	}}
}
