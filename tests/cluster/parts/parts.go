// Package parts knows the third-party programs the local cluster is made of and builds them from Go
// modules into a cache folder outside the repository.
//
// Each part is built in a small Go module of its own, written into the cache, because the parts'
// dependency versions exclude each other. The package must not know how the programs are run, and
// nothing of it may touch the repository's own go.mod.
package parts

import "time"

// Binary is one program of a part.
type Binary struct {
	// Name is the file name in the cache.
	Name string
	// Package is the import path of the main package.
	Package string
	// Estimate is how long a cold build took on 2 cores, what it shares with the part's earlier binaries left out.
	Estimate time.Duration
}

// Part is a set of programs from one module version.
type Part struct {
	// Name and Version make up the key in the cache.
	Name    string
	Version string
	// Module is the module's path.
	Module string
	// Defines are the linker's -X settings: most programs only learn their version this way.
	Defines map[string]string
	// Replaces are replace directives (old path to "path version") on top of those the module itself declares.
	Replaces map[string]string
	// Main is the source of a main package in the part's small module, for binaries of package "."; "" is none.
	Main     string
	Binaries []Binary
}

// Key names the part's folder in the cache.
func (p Part) Key() string { return p.Name + "-" + p.Version }

// Versions of the parts. They are constants because images are named after them.
const (
	KubernetesVersion = "v1.34.4"
	EtcdVersion       = "v3.6.8"
	VeleroVersion     = "v1.18.3"
	AWSPluginVersion  = "v1.14.3"
	S3Version         = "v1.8.0"
	CoreDNSVersion    = "v1.15.0"
	LocalPathVersion  = "v0.0.30"
)

// All returns the parts in the order in which they are built: the longest first, so that an estimate
// of the rest becomes better quickly.
func All() []Part {
	return []Part{
		kubernetes(),
		velero(),
		{
			Name: "velero-plugin-for-aws", Version: AWSPluginVersion, Module: "github.com/vmware-tanzu/velero-plugin-for-aws",
			Binaries: []Binary{
				{"velero-plugin-for-aws", "github.com/vmware-tanzu/velero-plugin-for-aws/velero-plugin-for-aws", 105 * time.Second},
				{"cp-plugin", "github.com/vmware-tanzu/velero-plugin-for-aws/hack/cp-plugin", time.Second},
			},
		},
		{
			Name: "coredns", Version: CoreDNSVersion, Module: "github.com/coredns/coredns",
			Main:     coreDNSMain,
			Binaries: []Binary{{"coredns", ".", 60 * time.Second}},
		},
		{
			Name: "versitygw", Version: S3Version, Module: "github.com/versity/versitygw",
			Binaries: []Binary{{"versitygw", "github.com/versity/versitygw/cmd/versitygw", 45 * time.Second}},
		},
		{
			Name: "local-path-provisioner", Version: LocalPathVersion, Module: "github.com/rancher/local-path-provisioner",
			Binaries: []Binary{{"local-path-provisioner", "github.com/rancher/local-path-provisioner", 45 * time.Second}},
		},
		{
			Name: "etcd", Version: EtcdVersion, Module: "go.etcd.io/etcd/server/v3",
			Binaries: []Binary{{"etcd", "go.etcd.io/etcd/server/v3", 17 * time.Second}},
		},
	}
}

// coreDNSMain is CoreDNS with the plugins that the cluster's Corefile names. The others would have the clients of three clouds
// built, too.
const coreDNSMain = `package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
)

func main() { coremain.Run() }
`

func kubernetes() Part {
	const version = "k8s.io/component-base/version."
	command := func(name string, seconds int) Binary {
		return Binary{name, "k8s.io/kubernetes/cmd/" + name, time.Duration(seconds) * time.Second}
	}
	return Part{
		Name: "kubernetes", Version: KubernetesVersion, Module: "k8s.io/kubernetes",
		Defines: map[string]string{
			version + "gitVersion": KubernetesVersion,
			version + "gitMajor":   "1",
			version + "gitMinor":   "34",
		},
		Binaries: []Binary{
			command("kube-apiserver", 198), command("kube-controller-manager", 48), command("kube-scheduler", 4),
			command("kubelet", 14), command("kube-proxy", 6), command("kubectl", 19),
		},
	}
}

func velero() Part {
	const module = "github.com/vmware-tanzu/velero"
	return Part{
		Name: "velero", Version: VeleroVersion, Module: module,
		Defines: map[string]string{module + "/pkg/buildinfo.Version": VeleroVersion},
		// The version that Velero's go.mod names is missing from the module proxy; only the printers are used.
		Replaces: map[string]string{"k8s.io/cli-runtime": "k8s.io/cli-runtime v0.33.4"},
		Binaries: []Binary{
			{"velero", module + "/cmd/velero", 147 * time.Second},
			{"velero-restore-helper", module + "/cmd/velero-restore-helper", time.Second},
			{"velero-helper", module + "/cmd/velero-helper", time.Second},
		},
	}
}
