package restore

import (
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

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
			resources: corev1.ResourceRequirements{Requests: quantities("50m", "32Mi"), Limits: quantities("50m", "32Mi")}, user: 65532, group: 65532,
		},
		"one that is smaller than the gate": {
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: quantities("1m", "4Mi"), Limits: quantities("1m", "4Mi")}
			},
			resources: corev1.ResourceRequirements{Requests: quantities("10m", "32Mi"), Limits: quantities("10m", "32Mi")}, user: 65532, group: 65532,
		},
		"one of several containers, of which one has no limits": {
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: quantities("1", "1Gi"), Limits: quantities("2", "2Gi")}
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d"})
			},
			resources: corev1.ResourceRequirements{Requests: quantities("50m", "32Mi")}, user: 65532, group: 65532,
		},
		"one that asks for a little memory alone": {
			change: func(p *corev1.Pod) {
				only := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
				p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: only, Limits: only}
			},
			resources: corev1.ResourceRequirements{
				Requests: quantities("50m", "32Mi"), Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")},
			}, user: 65532, group: 65532,
		},
		"one that asks for it as a whole": {
			change: func(p *corev1.Pod) {
				p.Spec.Resources = &corev1.ResourceRequirements{Requests: quantities("1m", "4Mi")}
			},
			user: 65532, group: 65532,
		},
		"one with scratch space": {
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("1Gi")}
			},
			resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
				corev1.ResourceEphemeralStorage: resource.MustParse("16Mi"),
			}}, user: 65532, group: 65532,
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

func TestWhatAnEarlierRestoreHasLeftIsTakenAway(t *testing.T) {
	for name, tt := range map[string]struct {
		record string
		gates  int
	}{
		"from a pod that gets a gate": {record: podRecord(t, "nightly"), gates: 1},
		"from a pod that gets none":   {record: podRecord(t, "older")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			original := recorded("web", tt.record)
			original.Annotations[contract.AnnotationRestore], original.Annotations[contract.AnnotationHeld] = "stale", "stale"
			original.Spec.InitContainers = append([]corev1.Container{{Name: contract.GateContainer, Image: "stale"}}, original.Spec.InitContainers...)
			original.Spec.Volumes = append(original.Spec.Volumes, corev1.Volume{Name: contract.GateVolume})
			original.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: contract.SchedulingGate}}

			pod, _, err := b.pod(original)
			require.NoError(t, err)
			assert.Len(t, pod.Spec.InitContainers, 1+tt.gates)
			assert.Len(t, pod.Spec.Volumes, 2+tt.gates)
			assert.Empty(t, pod.Spec.SchedulingGates)
			assert.NotContains(t, pod.Annotations, contract.AnnotationHeld)
			assert.NotEqual(t, "stale", pod.Annotations[contract.AnnotationRestore])
			assert.NotEqual(t, "stale", pod.Spec.InitContainers[0].Image)
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
