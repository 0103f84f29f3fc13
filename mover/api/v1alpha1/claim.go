package v1alpha1

import corev1 "k8s.io/api/core/v1"

// ClaimName returns the name of the PersistentVolumeClaim behind the pod's volume, and
// an empty string if there is none. The claim of a generic ephemeral volume is
// named after the pod and the volume.
func ClaimName(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return pod.Name + "-" + v.Name
	default:
		return ""
	}
}
