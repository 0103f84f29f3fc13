package bundle

import (
	"fmt"
	"sync"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// Bounds of the client. Velero asks item by item, so few calls are in the air at once.
const (
	callTimeout = 15 * time.Second
	callsPerSec = 100
	callsBurst  = 200
)

// connection makes the client when it is first needed, and again as long as
// that fails.
type connection struct {
	mu   sync.Mutex
	made client.Client
}

func (c *connection) client() (client.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.made != nil {
		return c.made, nil
	}

	config, err := restConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}

	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}

	made, err := client.New(config, client.Options{Scheme: scheme, Mapper: newMapper()})
	if err != nil {
		return nil, fmt.Errorf("make the client of the API server: %w", err)
	}

	c.made = made

	return made, nil
}

// restConfig reads the file that KUBECONFIG names, or the pod's own account.
func restConfig() (*rest.Config, error) {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, err
	}

	config.Timeout = callTimeout
	config.QPS = callsPerSec
	config.Burst = callsBurst
	config.UserAgent = "estiba-velero-plugin"

	return config, nil
}

func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()

	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, storagev1.AddToScheme, velerov1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register kinds: %w", err)
		}
	}

	return s, nil
}

// newMapper knows the few kinds that the actions read and write. Asking the API
// server what it serves would cost each process, and there is one every 10 s,
// more calls than all of its work.
func newMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)

	namespaced := map[schema.GroupVersion][]string{
		corev1.SchemeGroupVersion:         {"Pod", "PersistentVolumeClaim", "ConfigMap", "ServiceAccount"},
		appsv1.SchemeGroupVersion:         {"DaemonSet"},
		coordinationv1.SchemeGroupVersion: {"Lease"},
		velerov1.SchemeGroupVersion:       {"Backup", "VolumeSnapshotLocation"},
		v1alpha1.SchemeGroupVersion:       {"VolumeBackup", "VolumeRestore", "SnapshotDeletion", "Repository"},
	}
	for gv, kinds := range namespaced {
		for _, kind := range kinds {
			m.Add(gv.WithKind(kind), meta.RESTScopeNamespace)
		}
	}

	m.Add(corev1.SchemeGroupVersion.WithKind("PersistentVolume"), meta.RESTScopeRoot)
	m.Add(storagev1.SchemeGroupVersion.WithKind("StorageClass"), meta.RESTScopeRoot)

	return m
}
