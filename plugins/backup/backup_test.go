package backup

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// bench is a cluster in which node n has a live daemon and namespace shop a
// repository, and a session that looks at it.
type bench struct {
	*testing.T
	clock   *clocktesting.FakeClock
	client  client.Client
	session *Session
	log     *logrus.Logger
	lines   *logtest.Hook
	backup  *velerov1.Backup
}

func newBench(t *testing.T, objects ...client.Object) *bench {
	t.Helper()

	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := &bench{T: t, clock: clocktesting.NewFakeClock(now)}
	b.log, b.lines = logtest.NewNullLogger()
	b.backup = &velerov1.Backup{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "nightly", UID: "b-1"},
		Spec:       velerov1.BackupSpec{StorageLocation: "default"},
		Status:     velerov1.BackupStatus{Phase: velerov1.BackupPhaseInProgress, StartTimestamp: ptr.To(metav1.NewTime(now))},
	}

	scheme := kruntime.NewScheme()
	for _, add := range []func(*kruntime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme, velerov1.AddToScheme, v1alpha1.AddToScheme} {
		require.NoError(t, add(scheme))
	}

	repo := jobs.NewRepository("velero", "default", "shop")
	repo.Status = v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryReady, ID: "abcdefghijklmnopqrstuvwxyz"}
	objects = append(objects, repo, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-node-n", Labels: map[string]string{contract.LabelHeartbeat: contract.HeartbeatNode}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("n"), RenewTime: ptr.To(metav1.NewMicroTime(now))},
	})
	b.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	b.session = NewSession(func() (client.Client, error) { return b.client, nil }, b.clock)

	return b
}

func boundClaim(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("c-" + name)},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name, UID: types.UID("v-" + name), Labels: map[string]string{"tier": "gold"}},
		Spec:       corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: "Retain", ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: name, UID: types.UID("c-" + name)}},
		Status:     corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}

	return claim, volume
}

func podWith(name string, annotations map[string]string, volumes ...corev1.Volume) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("p-" + name), Annotations: annotations},
		Spec:       corev1.PodSpec{NodeName: "n", Volumes: volumes, Containers: []corev1.Container{{Name: "c"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, v := range volumes {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name})
	}

	return p
}

func emptyDir(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

func ofClaim(name, claim string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	}}
}

func (b *bench) item(object client.Object) *unstructured.Unstructured {
	b.Helper()

	content, err := kruntime.DefaultUnstructuredConverter.ToUnstructured(object)
	require.NoError(b, err)

	return &unstructured.Unstructured{Object: content}
}

// run executes an action and gives the annotations of the item, and the operation.
func (b *bench) run(object client.Object) (annotations map[string]string, op string) {
	b.Helper()

	var (
		item kruntime.Unstructured
		err  error
	)

	switch object.(type) {
	case *corev1.Pod:
		item, _, op, _, err = NewPodAction(b.log, b.session).Execute(b.item(object), b.backup)
	case *corev1.PersistentVolumeClaim:
		item, _, op, _, err = NewClaimAction(b.log, b.session).Execute(b.item(object), b.backup)
	default:
		item, _, op, _, err = NewVolumeAction(b.log, b.session).Execute(b.item(object), b.backup)
	}

	require.NoError(b, err, "an error would cost the item")

	return (&unstructured.Unstructured{Object: item.UnstructuredContent()}).GetAnnotations(), op
}

func (b *bench) jobs() []v1alpha1.VolumeBackup {
	b.Helper()

	var list v1alpha1.VolumeBackupList
	require.NoError(b, b.client.List(context.Background(), &list))

	return list.Items
}

func (b *bench) said(level logrus.Level) (lines []string) {
	for _, e := range b.lines.AllEntries() {
		if e.Level == level {
			lines = append(lines, e.Message)
		}
	}

	return lines
}

func selecting(volumes string) map[string]string {
	return map[string]string{contract.AnnotationBackupVolumes: volumes}
}

func TestASharedClaimIsMovedOnceAndGatesAllItsPods(t *testing.T) {
	claim, pv := boundClaim("data")
	first, second := podWith("web-0", nil, ofClaim("data", "data")), podWith("web-1", selecting("files"), ofClaim("files", "data"))
	b := newBench(t, claim, pv, first, second)

	_, claimOp := b.run(claim)
	firstRecord, firstOp := b.run(first)
	secondRecord, secondOp := b.run(second)

	made := b.jobs()
	require.Len(t, made, 1)
	assert.Equal(t, "web-0", made[0].Spec.Volume.Pod.Name, "read through the first pod by name, whoever asked")
	assert.Contains(t, claimOp, made[0].Name)
	assert.Empty(t, firstOp+secondOp, "the claim's operation reports the job")
	assert.Contains(t, firstRecord[contract.AnnotationVolumes], `"data":`, "a pod that didn't ask must wait at a gate, too")
	assert.Contains(t, secondRecord[contract.AnnotationVolumes], `"files":`)
}

func TestAPodAsksForItsClaimsWhereTheClaimsAreLeftOut(t *testing.T) {
	claim, pv := boundClaim("data")
	first, second := podWith("web-0", selecting("data"), ofClaim("data", "data")), podWith("web-1", nil, ofClaim("data", "data"))
	b := newBench(t, claim, pv, first, second)

	_, op := b.run(second)
	made := b.jobs()
	require.Len(t, made, 1)
	assert.Equal(t, v1alpha1.RequestedByPod, made[0].Spec.RequestedBy)
	assert.Contains(t, op, made[0].Name, "whoever makes the job reports it")
}

func TestAPodAgainIsTheSameJob(t *testing.T) {
	pod := podWith("web", selecting("cache"), emptyDir("cache"))
	b := newBench(t, pod)

	_, first := b.run(pod)
	_, second := b.run(pod)
	assert.Equal(t, first, second, "Velero's old and new server may overlap")
	assert.Len(t, b.jobs(), 1)
}

func TestThePolicyOfTheBackup(t *testing.T) {
	policy := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "policy"}, Data: map[string]string{
		"p": "version: v1\nvolumePolicies:\n- conditions: {volumeTypes: [emptyDir]}\n  action: {type: custom, parameters: {mover: estiba}}",
	}}
	pod := podWith("web", nil, emptyDir("cache"))

	for name, prepare := range map[string]func(b *velerov1.Backup){
		"its own": func(b *velerov1.Backup) {
			b.Spec.ResourcePolicy = &corev1.TypedLocalObjectReference{Kind: "ConfigMap", Name: "policy"}
		},
		"that of all backups": func(b *velerov1.Backup) { b.Annotations = map[string]string{globalPolicies: "policy"} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, policy, pod)
			prepare(b.backup)

			_, op := b.run(pod)
			assert.NotEmpty(t, op)
		})
	}

	t.Run("one that can't be read is an error in the log", func(t *testing.T) {
		b := newBench(t, pod)
		b.backup.Spec.ResourcePolicy = &corev1.TypedLocalObjectReference{Kind: "configmap", Name: "policy"}

		_, op := b.run(pod)
		assert.Empty(t, op)
		require.Len(t, b.said(logrus.ErrorLevel), 1)
		assert.Contains(t, b.said(logrus.ErrorLevel)[0], "ConfigMap velero/policy")
	})
}

func TestEachMissingPartIsNamed(t *testing.T) {
	pod := podWith("web", selecting("cache"), emptyDir("cache"))
	elsewhere := podWith("web", selecting("cache"), emptyDir("cache"))
	elsewhere.Spec.NodeName = "other"

	tests := map[string]struct {
		pod    *corev1.Pod
		daemon *corev1.Pod
		wait   time.Duration
		says   []string
	}{
		"no daemon reports":              {pod: pod, wait: 3 * time.Minute, says: []string{"no node daemon", "kubectl -n velero get daemonsets"}},
		"the daemon of the node doesn't": {pod: elsewhere, daemon: &corev1.Pod{Spec: corev1.PodSpec{NodeName: "other"}}, says: []string{"node other", "spec.nodeName=other"}},
		"that daemon has no node yet":    {pod: elsewhere, daemon: bound("other"), says: []string{"node other", "spec.nodeName=other"}},
		"the node is to have none":       {pod: elsewhere, daemon: bound("third"), says: []string{"node other", "isn't to have one"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			objects := []client.Object{tt.pod}
			if tt.daemon != nil {
				tt.daemon.ObjectMeta = metav1.ObjectMeta{Namespace: "velero", Name: "estiba-node-x", Labels: map[string]string{contract.LabelComponent: contract.ComponentNode}}
				objects = append(objects, tt.daemon)
			}

			b := newBench(t, objects...)
			b.clock.Step(tt.wait)

			annotations, op := b.run(tt.pod)
			assert.Empty(t, op)
			assert.Empty(t, b.jobs())

			record, err := contract.DecodePodRecord(annotations[contract.AnnotationVolumes])
			require.NoError(t, err)
			assert.Empty(t, record.Volumes)
			assert.Contains(t, record.Unprotected["cache"], tt.says[0], "a restore must be able to say so")

			require.Len(t, b.said(logrus.ErrorLevel), 1)

			for _, part := range tt.says {
				assert.Contains(t, b.said(logrus.ErrorLevel)[0], part)
			}
		})
	}
}

// bound is a pod that a DaemonSet has made for the node, and that is not on it yet.
func bound(node string) *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}},
		}},
	}}}}
}

// A cluster with virtual nodes is no outage, and one whose store is away is no matter of taste.
func TestHowLoudAVolumeIsThatCanNotBeMoved(t *testing.T) {
	optOut, fail := map[string]string{contract.AnnotationDefaultVolumes: "opt-out"}, map[string]string{contract.AnnotationDefaultVolumes: "opt-out", contract.AnnotationUnprotected: "fail"}
	away := v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryNotReady, Reason: "CredentialsInvalid"}

	for name, c := range map[string]struct {
		backup  map[string]string
		pod     map[string]string
		virtual bool
		want    logrus.Level
	}{
		"taken by default, on a virtual node":            {backup: optOut, virtual: true, want: logrus.WarnLevel},
		"so, where what is unprotected fails the backup": {backup: fail, virtual: true, want: logrus.ErrorLevel},
		"matched by a glob, on a virtual node":           {pod: selecting("c*"), virtual: true, want: logrus.WarnLevel},
		"named, on a virtual node":                       {pod: selecting("cache"), virtual: true, want: logrus.ErrorLevel},
		"taken by default, and the store is away":        {backup: optOut, want: logrus.ErrorLevel},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podWith("web", c.pod, emptyDir("cache"))
			if c.virtual {
				pod.Spec.NodeName = "virtual"
			}

			b := newBench(t, pod)
			b.backup.Annotations = c.backup

			if !c.virtual {
				away.LastCheckedTimestamp = ptr.To(metav1.NewTime(b.clock.Now()))
				b.repository(away)
			}

			annotations, op := b.run(pod)
			assert.Empty(t, op)
			assert.Len(t, b.said(c.want), 1)
			assert.Len(t, append(b.said(logrus.WarnLevel), b.said(logrus.ErrorLevel)...), 1)

			record, err := contract.DecodePodRecord(annotations[contract.AnnotationVolumes])
			require.NoError(t, err)
			assert.NotEmpty(t, record.Unprotected["cache"], "a restore says so, too")
		})
	}
}

func (b *bench) set(phase v1alpha1.Phase) {
	for _, job := range b.jobs() {
		job.Status.Phase = phase
		if err := b.client.Update(context.Background(), &job); err != nil {
			b.Error(err)
		}
	}
}

func TestProgressOutlivesTheAPIServer(t *testing.T) {
	pod := podWith("web", selecting("cache"), emptyDir("cache"))
	b := newBench(t, pod)
	_, op := b.run(pod)

	working := b.client
	b.client = interceptor.NewClient(working.(client.WithWatch), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return errors.New("refused")
		},
	})
	b.backup.Status.Phase = velerov1.BackupPhaseWaitingForPluginOperations

	p, err := NewPodAction(b.log, b.session).Progress(op, b.backup)
	require.NoError(t, err, "an error would end the operation for good")
	assert.False(t, p.Completed)

	b.client = working
	b.set(v1alpha1.PhaseCompleted)

	p, err = NewPodAction(b.log, b.session).Progress(op, b.backup)
	require.NoError(t, err)
	assert.True(t, p.Completed)
	assert.Empty(t, p.Err)
}

func TestProgressOfManyOperationsIsOneCall(t *testing.T) {
	var pods []client.Object
	for i := range 20 {
		pods = append(pods, podWith(fmt.Sprintf("web-%d", i), selecting("cache"), emptyDir("cache")))
	}

	b := newBench(t, pods...)

	var ids []string
	for _, p := range pods {
		_, op := b.run(p)
		ids = append(ids, op)
	}

	calls := 0
	b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
			calls++

			return c.List(ctx, l, o...)
		},
	})
	b.backup.Status.Phase = velerov1.BackupPhaseWaitingForPluginOperations

	for _, id := range ids {
		_, err := NewPodAction(b.log, b.session).Progress(id, b.backup)
		require.NoError(t, err)
		_, err = operation.Parse(id)
		require.NoError(t, err)
	}

	assert.Equal(t, 1, calls)
}
