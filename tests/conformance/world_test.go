package conformance_test

import (
	"bytes"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/clientmgmt"
	"github.com/vmware-tanzu/velero/pkg/plugin/clientmgmt/process"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	biav2 "github.com/vmware-tanzu/velero/pkg/plugin/velero/backupitemaction/v2"
	riav2 "github.com/vmware-tanzu/velero/pkg/plugin/velero/restoreitemaction/v2"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/tests/conformance/apiserver"
)

const (
	backups      = "apis/estiba.dev/v1alpha1/volumebackups"
	restores     = "apis/estiba.dev/v1alpha1/volumerestores"
	deletions    = "apis/estiba.dev/v1alpha1/snapshotdeletions"
	repositories = "apis/estiba.dev/v1alpha1/repositories"
	pods         = "api/v1/pods"
	claims       = "api/v1/persistentvolumeclaims"
	volumes      = "api/v1/persistentvolumes"
	leases       = "apis/coordination.k8s.io/v1/leases"
	daemonsets   = "apis/apps/v1/daemonsets"
	veleroBackup = "apis/velero.io/v1/backups"

	repositoryID = "abcdefghijklmnopqrstuvwxyz"
	image        = "estiba.test/estiba:dev"
)

// world is a cluster with one pod that has a claim and an emptyDir, both named
// by its annotation, and Velero's server with the plugin.
type world struct {
	*testing.T
	api     *apiserver.Server
	manager actions
	log     *sharedLog

	backup  *velerov1.Backup
	restore *velerov1.Restore
	pod     *corev1.Pod
	claim   *corev1.PersistentVolumeClaim
	volume  *corev1.PersistentVolume
}

func registry(t *testing.T, log logrus.FieldLogger) process.Registry {
	t.Helper()

	r := process.NewRegistry(pluginDir, log, logrus.DebugLevel)
	require.NoError(t, r.DiscoverPlugins())

	return r
}

// actions is how Velero's server comes by a plugin's actions.
type actions interface {
	GetBackupItemActionV2(name string) (biav2.BackupItemAction, error)
	GetRestoreItemActionV2(name string) (riav2.RestoreItemAction, error)
	GetDeleteItemAction(name string) (velero.DeleteItemAction, error)
}

// ownVelero is the Velero that Estiba is built with.
func ownVelero(t *testing.T, out io.Writer) actions {
	t.Helper()

	log := logrus.New()
	log.SetOutput(out)
	log.SetLevel(logrus.DebugLevel)

	m := clientmgmt.NewManager(log, logrus.DebugLevel, registry(t, log))
	t.Cleanup(m.CleanupClients)

	return m
}

func newWorld(t *testing.T) *world {
	t.Helper()

	w := &world{T: t, log: &sharedLog{}}
	w.api = apiserver.Start(t, apiserver.Resources{
		backups: "VolumeBackup", restores: "VolumeRestore", deletions: "SnapshotDeletion", repositories: "Repository",
		pods: "Pod", claims: "PersistentVolumeClaim", volumes: "PersistentVolume", "api/v1/configmaps": "ConfigMap",
		leases: "Lease", daemonsets: "DaemonSet", veleroBackup: "Backup",
	})
	t.Setenv("KUBECONFIG", w.api.Kubeconfig(t))

	if driver := os.Getenv(driverVariable); driver != "" {
		w.manager = drive(t, driver, w.log)
	} else {
		w.manager = ownVelero(t, w.log)
	}

	w.fill()

	return w
}

func (w *world) fill() {
	w.backup = &velerov1.Backup{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "nightly", UID: "b-1"},
		Spec:       velerov1.BackupSpec{StorageLocation: "default"},
		Status:     velerov1.BackupStatus{Phase: velerov1.BackupPhaseInProgress, StartTimestamp: ptr.To(metav1.Now())},
	}
	w.restore = &velerov1.Restore{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "again", UID: "r-1"},
		Spec:       velerov1.RestoreSpec{BackupName: "nightly", NamespaceMapping: map[string]string{"shop": "shop2"}},
		Status:     velerov1.RestoreStatus{Phase: velerov1.RestorePhaseInProgress, StartTimestamp: ptr.To(metav1.Now())},
	}
	w.pod = &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", UID: "p-1",
			Annotations: map[string]string{contract.AnnotationBackupVolumes: " data, cache ,gone", contract.AnnotationRestore: "stale"},
		},
		Spec: corev1.PodSpec{
			NodeName:       "node-a",
			InitContainers: []corev1.Container{{Name: contract.GateContainer}, {Name: "setup"}},
			Containers:     []corev1.Container{{Name: "web", VolumeMounts: []corev1.VolumeMount{{Name: "data"}, {Name: "cache"}}}},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
				{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: contract.GateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	w.claim = &corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "c-1", Annotations: map[string]string{"pv.kubernetes.io/bind-completed": "yes"}},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-1"},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
	w.volume = &corev1.PersistentVolume{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
		ObjectMeta: metav1.ObjectMeta{Name: "pv-1", UID: "v-1"},
		Spec:       corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "data", UID: "c-1"}},
		Status:     corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}
	w.api.Put(w.T, pods, w.pod)
	w.api.Put(w.T, claims, w.claim)
	w.api.Put(w.T, volumes, w.volume)
	w.api.Put(w.T, veleroBackup, w.backup)
	w.api.Put(w.T, leases, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-node-a", Labels: map[string]string{contract.LabelHeartbeat: contract.HeartbeatNode}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("node-a"), RenewTime: ptr.To(metav1.NowMicro())},
	})
	w.api.Put(w.T, leases, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-controller"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("c"), RenewTime: ptr.To(metav1.NowMicro())},
	})
	w.api.Put(w.T, daemonsets, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-mover", Labels: map[string]string{contract.LabelComponent: contract.ComponentNode}},
		Spec:       appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "mover", Image: image}}}}},
	})

	repo := jobs.NewRepository("velero", "default", "shop")
	repo.Status = v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryReady, ID: repositoryID}
	w.api.Put(w.T, repositories, repo)
}

func content[T any](w *world, object *T) *unstructured.Unstructured {
	w.Helper()

	c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	require.NoError(w, err)

	return &unstructured.Unstructured{Object: c}
}

func decoded[T any](w *world, item runtime.Unstructured) *T {
	w.Helper()

	object := new(T)
	require.NoError(w, runtime.DefaultUnstructuredConverter.FromUnstructured(item.UnstructuredContent(), object))

	return object
}

type backedUp struct {
	item      runtime.Unstructured
	operation string
	items     []velero.ResourceIdentifier
}

func (w *world) backUp(action string, object *unstructured.Unstructured) backedUp {
	w.Helper()

	a, err := w.manager.GetBackupItemActionV2(action)
	require.NoError(w, err)

	item, additional, operation, items, err := a.Execute(object, w.backup)
	require.NoError(w, err)
	assert.Empty(w, additional)

	return backedUp{item: item, operation: operation, items: items}
}

// backUpAll backs up in Velero's order.
func (w *world) backUpAll() (volume, claim, pod backedUp) {
	w.Helper()

	return w.backUp("estiba.dev/backup-volume", content(w, w.volume)),
		w.backUp("estiba.dev/backup-claim", content(w, w.claim)),
		w.backUp("estiba.dev/backup-pod", content(w, w.pod))
}

func (w *world) finish(phase v1alpha1.Phase, reason string) {
	w.Helper()

	for _, job := range apiserver.All[v1alpha1.VolumeBackup](w.T, w.api, backups) {
		job.Status.Phase, job.Status.Reason, job.Status.Message = phase, reason, "what happened"
		job.Status.Progress = v1alpha1.Progress{BytesDone: 1 << 20, TotalBytes: 1 << 20}
		w.api.Put(w.T, backups, &job)
	}
}

// sharedLog takes the log of the plugin's process, which goes on writing while a test reads.
type sharedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *sharedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.text.Write(p)
}

func (l *sharedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.text.String()
}
