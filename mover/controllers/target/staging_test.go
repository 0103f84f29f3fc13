package target_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/target"
)

func stagingPod(job string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: contract.StagingPodName(job), Labels: map[string]string{contract.LabelStaging: job}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: contract.StagingContainer, Command: []string{contract.GateCommand, contract.StagingHold},
				VolumeMounts: []corev1.VolumeMount{{Name: contract.StagingVolume, MountPath: contract.StagingMountPath, ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{{Name: contract.StagingVolume, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
			}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

func TestStagedFor(t *testing.T) {
	t.Parallel()

	mounting := corev1.Container{Name: "x", VolumeMounts: []corev1.VolumeMount{{Name: contract.StagingVolume}}}

	for name, c := range map[string]struct {
		mutate func(*corev1.Pod)
		none   bool
	}{
		"as it is made":                                   {mutate: func(*corev1.Pod) {}},
		"with a container beside it":                      {mutate: func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "mesh"}) }},
		"of another name":                                 {mutate: func(p *corev1.Pod) { p.Name = "mine" }, none: true},
		"without the label":                               {mutate: func(p *corev1.Pod) { p.Labels = nil }, none: true},
		"with another command":                            {mutate: func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sh"} }, none: true},
		"with a volume that a shell in it could write to": {mutate: func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[0].ReadOnly = false }, none: true},
		"with another argument":                           {mutate: func(p *corev1.Pod) { p.Spec.Containers[0].Args = []string{"--gate=/x"} }, none: true},
		"with a container that mounts the volume":         {mutate: func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, mounting) }, none: true},
		"with an init container that does":                {mutate: func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{mounting} }, none: true},
		"with an ephemeral container that does": {mutate: func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon(mounting)}}
		}, none: true},
		"with a container that has it as a device": {mutate: func(p *corev1.Pod) {
			p.Spec.Containers[0].Command, p.Spec.Containers[0].VolumeDevices = nil, []corev1.VolumeDevice{{Name: contract.StagingVolume}}
		}, none: true},
		"with a volume that is no claim": {mutate: func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		}, none: true},
		"with the claim under a second name, mounted": {mutate: func(p *corev1.Pod) {
			second := *p.Spec.Volumes[0].DeepCopy()
			second.Name = "again"
			p.Spec.Volumes = append(p.Spec.Volumes, second)
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "x", VolumeMounts: []corev1.VolumeMount{{Name: "again"}}})
		}, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			pod := stagingPod("vb-1")
			c.mutate(&pod)

			if c.none {
				assert.Empty(t, target.StagedFor(&pod))
				return
			}

			assert.Equal(t, "vb-1", target.StagedFor(&pod))
		})
	}
}

func TestClaimPods(t *testing.T) {
	t.Parallel()

	idle := stagingPod("vb-2")
	idle.Spec.Containers[0].VolumeMounts = nil

	other := stagingPod("vb-3")
	other.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "other"

	debugged := *idle.DeepCopy()
	debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debug", VolumeMounts: []corev1.VolumeMount{{Name: contract.StagingVolume}},
	}}}

	pods := target.ClaimPods("data", []corev1.Pod{stagingPod("vb-1"), idle, other, debugged})
	require.Len(t, pods, 2, "what no container mounts isn't mounted")
	assert.Equal(t, "vb-1", pods[0].StagedFor)
	assert.True(t, pods[0].Running)
	assert.Empty(t, pods[1].StagedFor)
}
