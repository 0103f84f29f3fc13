package restore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestAVolumeThatIsMountedReadOnlyAsAWholeCanBeFilledAndStaysReadOnlyForItsPod(t *testing.T) {
	pod := recorded("web", podRecord(t, "nightly"))
	pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "other", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "other", ReadOnly: true},
	}})

	mounts := []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "cache", MountPath: "/cache"}, {Name: "other", MountPath: "/other"}}
	pod.Spec.Containers[0].VolumeMounts = mounts
	pod.Spec.InitContainers[0].VolumeMounts = mounts[:1]

	got, _, err := newBench(t).pod(pod)
	require.NoError(t, err)

	readOnly := map[string]bool{}
	for _, v := range got.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			readOnly[v.Name] = v.PersistentVolumeClaim.ReadOnly
		}
	}

	assert.Equal(t, map[string]bool{"data": false, "other": true}, readOnly, "what is not to be filled stays as it is")

	for _, c := range []corev1.Container{got.Spec.InitContainers[1], got.Spec.Containers[0]} {
		for _, m := range c.VolumeMounts {
			assert.Equal(t, m.Name == "data", m.ReadOnly, "%s of %s", m.Name, c.Name)
		}
	}
}
