package restore

import (
	"context"
	"errors"
	"slices"
	"strings"
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
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

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
	for _, add := range []func(*kruntime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, velerov1.AddToScheme, v1alpha1.AddToScheme} {
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

	text, err := contract.ClaimRecord{Backup: contract.Owner{Name: backup, UID: "b-1"}, Volume: volumeRecord("vb-data", "data")}.Encode()
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

func TestTheGateIsAdmittedWhereTheRestrictedStandardIsEnforced(t *testing.T) {
	b := newBench(t)
	pod, out, err := b.pod(recorded("web", podRecord(t, "nightly")))
	require.NoError(t, err)
	require.Len(t, pod.Spec.InitContainers, 2)

	c := pod.Spec.InitContainers[0]
	assert.Equal(t, contract.GateContainer, c.Name)
	assert.Equal(t, []string{contract.GateCommand}, c.Command)
	assert.Equal(t, []corev1.VolumeMount{{Name: contract.GateVolume, MountPath: contract.GateMountPath, ReadOnly: true}}, c.VolumeMounts)
	assert.Equal(t, corev1.TerminationMessageReadFile, c.TerminationMessagePolicy)
	assert.Equal(t, &corev1.SecurityContext{
		RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(65532)), RunAsGroup: ptr.To(int64(65532)),
		AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}, c.SecurityContext)
	assert.Empty(t, c.Resources, "the workload's own has none")
	assert.Equal(t, corev1.Volume{Name: contract.GateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}, pod.Spec.Volumes[2])
	assert.Equal(t, "setup", pod.Spec.InitContainers[1].Name)

	made := b.jobs()
	require.Len(t, made, 2)

	for _, job := range made {
		assert.Contains(t, out.OperationID, job.Name)
		assert.Equal(t, "second", job.Spec.Repository.BackupStorageLocation, "the one that the Backup names in this cluster")
		assert.Equal(t, v1alpha1.OwnerReference{Name: "nightly", UID: "b-1"}, job.Spec.Snapshot.Backup, "the UID that the snapshot is tagged with")
	}
}

func TestTheGateFitsWhereTheWorkloadFits(t *testing.T) {
	quantities := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}

	tests := map[string]struct {
		change    func(*corev1.Pod)
		resources corev1.ResourceRequirements
		user      int64
		group     int64
	}{
		"one that says nothing": {change: func(*corev1.Pod) {}, user: 65532, group: 65532},
		"one with resources, among them a card": {
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: quantities("1", "1Gi"), Limits: quantities("2", "2Gi")}
				p.Spec.Containers[0].Resources.Limits["example.com/card"] = resource.MustParse("1")
			},
			resources: corev1.ResourceRequirements{Requests: quantities("1", "1Gi"), Limits: quantities("2", "2Gi")}, user: 65532, group: 65532,
		},
		"one that is smaller than the gate": {
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: quantities("1m", "4Mi"), Limits: quantities("1m", "4Mi")}
			},
			resources: corev1.ResourceRequirements{Requests: quantities("1m", "4Mi"), Limits: quantities("1m", "32Mi")}, user: 65532, group: 65532,
		},
		"one with a user of its range": {
			change: func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(1000650000)), RunAsGroup: ptr.To(int64(7))}
			},
			user: 1000650000, group: 7,
		},
		"one whose container has another user than the pod": {
			change: func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(5)), RunAsGroup: ptr.To(int64(7))}
				p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(int64(6)), Privileged: ptr.To(true)}
			},
			user: 6, group: 7,
		},
		"one that runs as root": {
			change: func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(0)), RunAsGroup: ptr.To(int64(0))}
			},
			user: 65532, group: 65532,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			original := recorded("web", podRecord(t, "nightly"))
			tt.change(original)

			pod, _, err := b.pod(original)
			require.NoError(t, err)

			c := pod.Spec.InitContainers[0]
			assert.True(t, equality.Semantic.DeepEqual(tt.resources, c.Resources), "%v", c.Resources)
			assert.Equal(t, tt.user, *c.SecurityContext.RunAsUser)
			assert.Equal(t, tt.group, *c.SecurityContext.RunAsGroup)
			assert.Nil(t, c.SecurityContext.Privileged)
			assert.True(t, *c.SecurityContext.RunAsNonRoot)
		})
	}
}

func TestTheGateIsSetUpByAConfigMap(t *testing.T) {
	const ours, veleros = contract.LabelPluginConfig, "velero.io/plugin-config"

	labelled := func(name, label string, data map[string]string) client.Object {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: name, Labels: map[string]string{label: ""}}, Data: data}
		if label == veleros {
			cm.Labels["velero.io/pod-volume-restore"] = "RestoreItemAction"
		}

		return cm
	}
	all := map[string]string{
		"image": "mirror.test/estiba:1", "cpuRequest": "20m", "memRequest": "20Mi", "cpuLimit": "200m", "memLimit": "200Mi",
		"secCtxRunAsUser": "1001", "secCtxRunAsGroup": "1002", "secCtxAllowPrivilegeEscalation": "false", "secCtx": "readOnlyRootFilesystem: false",
	}

	tests := map[string]struct {
		maps  []client.Object
		image string
		cpu   string
		user  int64
		error string
		warns string
	}{
		"none":     {image: "image", user: 65532},
		"ours":     {maps: []client.Object{labelled("mine", ours, all)}, image: "mirror.test/estiba:1", cpu: "200m", user: 1001},
		"Velero's": {maps: []client.Object{labelled("fs", veleros, all)}, image: "image", cpu: "200m", user: 1001, warns: "ConfigMap velero/fs, key image"},
		"both": {
			maps:  []client.Object{labelled("mine", ours, map[string]string{"cpuLimit": "1"}), labelled("fs", veleros, all)},
			image: "image", cpu: "1", user: 65532,
		},
		"bad values": {
			maps:  []client.Object{labelled("mine", ours, map[string]string{"cpuLimit": "much", "secCtxRunAsUser": "1001", "tag": "1"})},
			image: "image", user: 1001, error: `ConfigMap velero/mine, key cpuLimit: "much"`, warns: "ConfigMap velero/mine, key tag",
		},
		"a bad security context": {
			maps:  []client.Object{labelled("fs", veleros, map[string]string{"secCtx": "{", "cpuLimit": "1"})},
			image: "image", cpu: "1", user: 65532, error: "ConfigMap velero/fs, key secCtx",
		},
		"two of ours":     {maps: []client.Object{labelled("a", ours, all), labelled("b", ours, all)}, image: "image", user: 65532, error: "velero/a, velero/b"},
		"two of Velero's": {maps: []client.Object{labelled("a", veleros, all), labelled("b", veleros, all)}, image: "image", user: 65532, error: "velero/a, velero/b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for _, cm := range tt.maps {
				require.NoError(t, b.client.Create(t.Context(), cm))
			}

			pod, out, err := b.pod(recorded("web", podRecord(t, "nightly")))
			require.NoError(t, err)
			require.NotEmpty(t, out.OperationID, "no item is lost for a bad setting")

			c := pod.Spec.InitContainers[0]
			assert.Equal(t, tt.image, c.Image)
			assert.Equal(t, tt.user, *c.SecurityContext.RunAsUser)
			assert.Equal(t, tt.cpu != "", len(c.Resources.Limits) > 0)

			if tt.cpu != "" {
				assert.Equal(t, tt.cpu, c.Resources.Limits.Cpu().String())
			}

			if tt.warns != "" {
				assert.Contains(t, b.lines.LastEntry().Message, "VolumeRestore", "the last is about a job")
				assert.True(t, slices.ContainsFunc(b.lines.AllEntries(), func(e *logrus.Entry) bool {
					return e.Level == logrus.WarnLevel && strings.Contains(e.Message, tt.warns)
				}))
			}

			require.Equal(t, tt.error != "", out.WaitForAdditionalItems)

			_, err = NewPodAction(b.log, b.session).AreAdditionalItemsReady(nil, b.restore)
			if tt.error == "" {
				require.NoError(t, err)

				return
			}

			require.ErrorContains(t, err, tt.error)

			_, out, err = b.pod(recorded("web-1", podRecord(t, "nightly")))
			require.NoError(t, err)
			assert.False(t, out.WaitForAdditionalItems, "it is said once")
		})
	}
}

func TestAPodWhoseGateIsNotAdmittedIsHeldBack(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", errors.New("maximum cpu usage per Container is 1, but limit is 2"))
	tests := map[string]struct {
		refuse func(*unstructured.Unstructured) error
		held   bool
	}{
		"the gate is refused": {held: true, refuse: func(p *unstructured.Unstructured) error {
			if list, _, _ := unstructured.NestedSlice(p.Object, "spec", "initContainers"); len(list) == 2 {
				return forbidden
			}

			return nil
		}},
		"the pod is refused anyway":   {refuse: func(*unstructured.Unstructured) error { return forbidden }},
		"the API server doesn't know": {refuse: func(*unstructured.Unstructured) error { return apierrors.NewInternalError(errors.New("webhook")) }},
		"such a pod is there, which is no refusal": {refuse: func(*unstructured.Unstructured) error {
			return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "pods"}, "web")
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.restore.Spec.NamespaceMapping = map[string]string{"shop": "shop2"}
			b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
				Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
					p, ok := o.(*unstructured.Unstructured)
					if !ok {
						return c.Create(ctx, o, opts...)
					}

					assert.Equal(t, []client.CreateOption{client.DryRunAll}, opts)
					assert.Equal(t, "shop2/web", p.GetNamespace()+"/"+p.GetName())

					return tt.refuse(p)
				},
			})

			pod, out, err := b.pod(recorded("web", podRecord(t, "nightly")))
			require.NoError(t, err)
			assert.Equal(t, tt.held, len(pod.Spec.SchedulingGates) == 1)
			assert.Equal(t, !tt.held, pod.Spec.InitContainers[0].Name == contract.GateContainer)
			assert.Equal(t, !tt.held, out.OperationID != "")

			if tt.held {
				assert.Empty(t, b.jobs())
				requireHeld(b, "maximum cpu usage")
			}
		})
	}
}

func TestOnFailure(t *testing.T) {
	controller := func(kind string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{Kind: kind, Name: "o", Controller: ptr.To(true)}}
	}

	tests := map[string]struct {
		policy corev1.RestartPolicy
		owners []metav1.OwnerReference
		want   string
	}{
		"a pod that always restarts":      {policy: corev1.RestartPolicyAlways, want: "exit"},
		"a pod that doesn't say":          {want: "exit"},
		"a pod that restarts on failure":  {policy: corev1.RestartPolicyOnFailure, want: "exit"},
		"a pod that never restarts":       {policy: corev1.RestartPolicyNever, want: "hold"},
		"a pod of a ReplicaSet":           {policy: corev1.RestartPolicyAlways, owners: controller("ReplicaSet"), want: "exit"},
		"a pod of a Job that restarts it": {policy: corev1.RestartPolicyOnFailure, owners: controller("Job"), want: "hold"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			original := recorded("web", podRecord(t, "nightly"))
			original.Spec.RestartPolicy, original.OwnerReferences = tt.policy, tt.owners

			pod, _, err := b.pod(original)
			require.NoError(t, err)
			assert.Contains(t, pod.Spec.InitContainers[0].Args, "--on-failure="+tt.want)
		})
	}
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

func TestAPodWaitsAtItsGateForWhoeverIsMissing(t *testing.T) {
	tests := map[string]struct {
		without string
		step    time.Duration
		says    string
	}{
		"no heartbeat":           {without: "lease", says: "no node daemon"},
		"a heartbeat that's old": {step: 3 * time.Minute, says: "no node daemon"},
		"no controller":          {without: "controller", says: "the controller of Estiba"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tt.without)
			b.clock.Step(tt.step)

			pod, out, err := b.pod(recorded("web", podRecord(t, "nightly")))
			require.NoError(t, err)
			assert.Equal(t, contract.GateContainer, pod.Spec.InitContainers[0].Name)
			assert.Empty(t, pod.Spec.SchedulingGates)
			assert.Len(t, b.jobs(), 2)
			assert.NotEmpty(t, out.OperationID)

			var said []string
			for _, line := range b.lines.AllEntries() {
				if line.Level == logrus.WarnLevel {
					said = append(said, line.Message)
				}
			}

			assert.Contains(t, strings.Join(said, "\n"), tt.says)
		})
	}
}

func TestAPodThatCanNotBeGatedExistsAndIsNeverScheduled(t *testing.T) {
	tests := map[string]struct {
		without string
		record  string
		says    string
	}{
		"no DaemonSet":           {without: "daemonset", says: "apply your overlay of Estiba's manifests"},
		"no Backup":              {without: "backup", says: "Backup velero/nightly"},
		"a record of the future": {record: `{"version":2}`, says: "version 2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tt.without)

			record := tt.record
			if record == "" {
				record = podRecord(t, "nightly")
			}

			original := recorded("web", record)
			original.Spec.NodeName = "n"
			original.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "theirs"}}

			pod, out, err := b.pod(original)
			require.NoError(t, err, "a pod that is left out is made anew by its controller, on empty volumes")
			assert.Equal(t, []corev1.PodSchedulingGate{{Name: "theirs"}, {Name: contract.SchedulingGate}}, pod.Spec.SchedulingGates)
			assert.Empty(t, pod.Spec.NodeName)
			assert.Contains(t, pod.Annotations[contract.AnnotationHeld], tt.says)
			assert.Empty(t, b.jobs())
			assert.Empty(t, out.OperationID)

			require.True(t, out.WaitForAdditionalItems, "only so does Velero ask for the error")
			requireHeld(b, tt.says)
		})
	}
}

// requireHeld asks as Velero does after it has got a pod that is held back.
func requireHeld(b *bench, says string) {
	b.Helper()

	action := NewPodAction(b.log, b.session)
	other := b.restore.DeepCopy()
	other.UID = "r-2"
	_, err := action.AreAdditionalItemsReady(nil, other)
	require.NoError(b, err, "it is another restore's")

	_, err = action.AreAdditionalItemsReady(nil, b.restore)
	require.ErrorContains(b, err, "shop/")
	require.ErrorContains(b, err, says)
	require.ErrorContains(b, err, "restore again")

	_, err = action.AreAdditionalItemsReady(nil, b.restore)
	require.NoError(b, err, "it is said once")
}

func TestJobsOfAPodThatIsHeldBackAreCancelled(t *testing.T) {
	b := newBench(t)
	_, _, err := b.pod(recorded("web", podRecord(t, "nightly")))
	require.NoError(t, err)

	// Another pod with the same claim, whose snapshot is another: a conflict.
	text, err := contract.PodRecord{Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volumes: map[string]contract.Volume{
		"cache": volumeRecord("vb-cache2", ""), "data": volumeRecord("vb-else", "data"),
	}}.Encode()
	require.NoError(t, err)
	pod, _, err := b.pod(recorded("web-1", text))
	require.NoError(t, err)
	assert.Len(t, pod.Spec.SchedulingGates, 1)
	requireHeld(b, "asks for something else")

	for _, job := range b.jobs() {
		assert.Equal(t, job.Spec.Snapshot.Job == "vb-cache2", job.Spec.Cancel, job.Spec.Snapshot.Job)
	}
}

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
