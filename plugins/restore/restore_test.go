package restore

import (
	"context"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

const repositoryID = "abcdefghijklmnopqrstuvwxyz"

type bench struct {
	*testing.T
	client  client.Client
	session *Session
	clock   *clocktesting.FakeClock
	log     *logrus.Logger
	lines   *logtest.Hook
	restore *velerov1.Restore
}

// parts are the objects by which a cluster can restore.
func parts(now time.Time) map[string]client.Object {
	return map[string]client.Object{
		"backup": &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "nightly", UID: "other-uid"}, Spec: velerov1.BackupSpec{StorageLocation: "second"}},
		"daemonset": &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-mover", Labels: map[string]string{contract.LabelComponent: contract.ComponentNode}},
			Spec:       appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "image"}}}}},
		},
		"lease": &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-node-n", Labels: map[string]string{contract.LabelHeartbeat: contract.HeartbeatNode}},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("n"), RenewTime: ptr.To(metav1.NewMicroTime(now))},
		},
		"controller": &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-controller"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("c"), RenewTime: ptr.To(metav1.NewMicroTime(now))},
		},
	}
}

func newBench(t *testing.T, without ...string) *bench {
	t.Helper()

	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := &bench{T: t, clock: clocktesting.NewFakeClock(now)}
	b.log, b.lines = logtest.NewNullLogger()
	b.restore = &velerov1.Restore{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "again", UID: "r-1"},
		Spec:       velerov1.RestoreSpec{BackupName: "nightly"},
	}

	scheme := kruntime.NewScheme()
	for _, add := range []func(*kruntime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, storagev1.AddToScheme, velerov1.AddToScheme, v1alpha1.AddToScheme} {
		require.NoError(t, add(scheme))
	}

	objects := parts(now)
	for _, name := range without {
		delete(objects, name)
	}

	builder := fake.NewClientBuilder().WithScheme(scheme)
	for _, o := range objects {
		builder = builder.WithObjects(o)
	}

	b.client = builder.Build()
	b.session = NewSession(func() (client.Client, error) { return b.client, nil }, b.clock)

	return b
}

func volumeRecord(job, claim string) contract.Volume {
	v := contract.Volume{Job: job, Kind: "EmptyDir", Source: "/x", Repository: contract.Repository{
		Namespace: "shop", ID: repositoryID, Path: "plugins/estiba/repositories/shop/" + repositoryID + "/",
	}}
	if claim != "" {
		v.Kind, v.Claim = "PersistentVolumeClaim", claim
	}

	return v
}

func podRecord(t *testing.T, backup string) string {
	t.Helper()

	text, err := contract.PodRecord{Backup: contract.Owner{Name: backup, UID: "b-1"}, Volumes: map[string]contract.Volume{
		"data": volumeRecord("vb-data", "data"), "cache": volumeRecord("vb-cache", ""),
	}}.Encode()
	require.NoError(t, err)

	return text
}

func claimRecord(t *testing.T, backup string) string {
	t.Helper()

	text, err := contract.ClaimRecord{
		Backup: contract.Owner{Name: backup, UID: "b-1"}, Volume: volumeRecord("vb-data", "data"),
		PersistentVolume: &contract.PersistentVolume{ReclaimPolicy: "Retain", Labels: map[string]string{"tier": "gold"}},
	}.Encode()
	require.NoError(t, err)

	return text
}

func recorded(name, record string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{contract.AnnotationVolumes: record}},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "setup"}},
			Containers:     []corev1.Container{{Name: "c"}},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
				{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
}

func (b *bench) item(object any) *unstructured.Unstructured {
	b.Helper()

	content, err := kruntime.DefaultUnstructuredConverter.ToUnstructured(object)
	require.NoError(b, err)

	return &unstructured.Unstructured{Object: content}
}

func (b *bench) pod(original *corev1.Pod) (*corev1.Pod, *velero.RestoreItemActionExecuteOutput, error) {
	b.Helper()

	// Velero takes the owners off before it asks.
	item := original.DeepCopy()
	item.OwnerReferences = nil

	out, err := NewPodAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{
		Item: b.item(item), ItemFromBackup: b.item(original), Restore: b.restore,
	})
	if err != nil {
		return nil, nil, err
	}

	pod := new(corev1.Pod)
	require.NoError(b, kruntime.DefaultUnstructuredConverter.FromUnstructured(out.UpdatedItem.UnstructuredContent(), pod))

	return pod, out, nil
}

func (b *bench) jobs() []v1alpha1.VolumeRestore {
	b.Helper()

	var list v1alpha1.VolumeRestoreList
	require.NoError(b, b.client.List(context.Background(), &list))

	return list.Items
}

func TestPodsThatShareAClaimShareItsJob(t *testing.T) {
	b := newBench(t)
	_, first, err := b.pod(recorded("web-0", podRecord(t, "nightly")))
	require.NoError(t, err)
	_, second, err := b.pod(recorded("web-1", podRecord(t, "nightly")))
	require.NoError(t, err)

	assert.Len(t, b.jobs(), 3, "one for the claim, and one for each emptyDir")
	assert.NotEqual(t, first.OperationID, second.OperationID)
}

func TestPodsThatAreNotGated(t *testing.T) {
	tests := map[string]struct {
		record func(t *testing.T) string
		change func(r *velerov1.Restore, p *corev1.Pod)
		warns  string
	}{
		"one without a record":          {record: func(*testing.T) string { return "" }, change: func(_ *velerov1.Restore, p *corev1.Pod) { p.Annotations = nil }},
		"one with another backup's":     {record: func(t *testing.T) string { t.Helper(); return podRecord(t, "older") }, warns: `belongs to the backup "older"`},
		"where volumes aren't restored": {record: func(t *testing.T) string { t.Helper(); return podRecord(t, "nightly") }, change: func(r *velerov1.Restore, _ *corev1.Pod) { r.Spec.RestorePVs = ptr.To(false) }},
		"unreadable, and not wanted":    {record: func(*testing.T) string { return `{"version":9}` }, change: func(r *velerov1.Restore, _ *corev1.Pod) { r.Spec.RestorePVs = ptr.To(false) }},
		"one that lost its volumes":     {record: func(t *testing.T) string { t.Helper(); return podRecord(t, "nightly") }, change: func(_ *velerov1.Restore, p *corev1.Pod) { p.Spec.Volumes = nil }, warns: "left out"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			original := recorded("web", tt.record(t))

			if tt.change != nil {
				tt.change(b.restore, original)
			}

			pod, out, err := b.pod(original)
			require.NoError(t, err)
			assert.Len(t, pod.Spec.InitContainers, 1)
			assert.Empty(t, out.OperationID)
			assert.NotContains(t, pod.Annotations, contract.AnnotationVolumes)
			assert.Empty(t, b.jobs())

			if tt.warns != "" {
				require.NotEmpty(t, b.lines.AllEntries())
				assert.Contains(t, b.lines.LastEntry().Message, tt.warns)
				assert.Equal(t, logrus.WarnLevel, b.lines.LastEntry().Level)
			}
		})
	}
}

// requireHeld asks as Velero does after it has got a pod that is held back.
func TestVolumesThatAreNotInTheBackupAreSaidToComeBackEmpty(t *testing.T) {
	text, err := contract.PodRecord{
		Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volumes: map[string]contract.Volume{},
		Unprotected: map[string]string{"data": "NotAskedFor: no node daemon", "cache": "PodNotRunning: pod web is Pending"},
	}.Encode()
	require.NoError(t, err)

	// Neither a daemon nor a DaemonSet: nothing is needed to say so.
	b := newBench(t, "lease", "daemonset", "controller", "backup")
	pod, out, err := b.pod(recorded("web", text))
	require.NoError(t, err)
	assert.Len(t, pod.Spec.InitContainers, 1, "it is not gated")
	assert.Empty(t, out.OperationID)
	assert.Empty(t, b.jobs())

	lines := b.lines.AllEntries()
	require.Len(t, lines, 2)

	for i, want := range []string{"volume cache", "volume data"} {
		assert.Equal(t, logrus.WarnLevel, lines[i].Level)
		assert.Contains(t, lines[i].Message, want)
		assert.Contains(t, lines[i].Message, "comes back without its data")
	}

	assert.Contains(t, lines[1].Message, "no node daemon")

	var named []string
	for _, i := range out.AdditionalItems {
		named = append(named, i.String()+" "+i.Namespace+" "+i.Name)
	}

	assert.Equal(t, []string{
		"volume-data-not-in-backup.estiba.dev shop pod-web-volume-cache", "volume-data-not-in-backup.estiba.dev shop pod-web-volume-data",
	}, named, "Velero warns of what the backup doesn't hold")
}

func TestVolume(t *testing.T) {
	for name, tt := range map[string]struct {
		record string
		skip   bool
	}{
		"one whose claim was moved": {record: claimRecord(t, "nightly"), skip: true},
		"one with another backup's": {record: claimRecord(t, "older")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv", Annotations: map[string]string{contract.AnnotationVolume: tt.record}}}

			out, err := NewVolumeAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: b.item(pv), ItemFromBackup: b.item(pv), Restore: b.restore})
			require.NoError(t, err)
			assert.Equal(t, tt.skip, out.SkipRestore)
			assert.NotContains(t, annotations(out.UpdatedItem), contract.AnnotationVolume)
		})
	}
}
