package volumeselect

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// obstruction is what keeps a selected volume from being moved.
type obstruction struct {
	reason Reason
	level  Level
	why    string
}

// obstacle looks for what keeps the volume from being read through the pod. It
// is as loud as the volume was asked for, unless there is no data to be lost.
func obstacle(pod *corev1.Pod, volume *corev1.Volume, s selection) *obstruction {
	loud := s.loud

	if kind := typeOf(&volume.VolumeSource); noData(kind) {
		return &obstruction{ReasonNoData, Info, fmt.Sprintf("Kubernetes fills volumes of the kind %s itself", kind)}
	}

	// Before its kind: no volume of a Windows pod is ever worth an error.
	if o := placeObstacle(pod, loud); o != nil {
		return o
	}

	if o := kindObstacle(volume, s); o != nil {
		return o
	}

	u := useOf(&pod.Spec, volume.Name)

	switch {
	case u.block:
		return &obstruction{ReasonBlock, loud, fmt.Sprintf("pod %s uses it as a raw block device, which holds no files; take a CSI snapshot of it", pod.Name)}
	case !u.mounted:
		return &obstruction{ReasonNotMounted, min(loud, Warning), fmt.Sprintf("no container of pod %s mounts it, so it isn't on the node", pod.Name)}
	default:
		return runObstacle(pod, volume, loud)
	}
}

func kindObstacle(volume *corev1.Volume, s selection) *obstruction {
	kind, loud := typeOf(&volume.VolumeSource), s.loud

	switch kind {
	case kindClaim, kindEmptyDir:
		return nil
	case kindHostPath:
		return &obstruction{ReasonUnsupported, min(loud, Warning), "a hostPath belongs to the node, not to the pod"}
	case kindEphemeral:
		// A policy by class or capacity meets such claims by chance.
		if s.reason != ReasonAnnotation {
			loud = min(loud, Warning)
		}

		return &obstruction{ReasonUnsupported, loud, "the claim of an ephemeral volume belongs to one pod, and a restored pod gets a new one; use a PersistentVolumeClaim of its own"}
	default:
		return &obstruction{ReasonUnsupported, loud, fmt.Sprintf("volumes of the kind %s are mounted by the pod itself; put a PersistentVolumeClaim before it", kind)}
	}
}

// placeObstacle looks for pods whose volumes are not where those of others are.
func placeObstacle(pod *corev1.Pod, loud Level) *obstruction {
	if windows(&pod.Spec) {
		return &obstruction{ReasonWindows, min(loud, Warning), fmt.Sprintf("pod %s runs on Windows, and Estiba moves volumes on Linux nodes only", pod.Name)}
	}

	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return &obstruction{ReasonStaticPod, min(loud, Warning), fmt.Sprintf("pod %s is the mirror of a file on its node and can't be restored", pod.Name)}
	}

	return nil
}

// placesObstacle looks for a claim that pods on Windows alone mount.
func placesObstacle(mounts []Carrier, loud Level) *obstruction {
	var first *obstruction

	for _, m := range mounts {
		o := placeObstacle(m.Pod, loud)
		if o == nil || o.reason != ReasonWindows {
			return nil
		}

		if first == nil {
			first = o
		}
	}

	return first
}

func runObstacle(pod *corev1.Pod, volume *corev1.Volume, loud Level) *obstruction {
	// An emptyDir of a pod that doesn't run yet, or no more, holds nothing that could be lost.
	if volume.EmptyDir != nil {
		loud = min(loud, Warning)
	}

	if pod.Spec.NodeName == "" {
		return &obstruction{ReasonNoNode, loud, fmt.Sprintf("pod %s is not on a node yet", pod.Name)}
	}

	if pod.Status.Phase != corev1.PodRunning {
		return &obstruction{ReasonNotRunning, loud, fmt.Sprintf("pod %s is %s, and only a volume that a running pod mounts can be read", pod.Name, phase(pod))}
	}

	if pod.DeletionTimestamp != nil {
		return &obstruction{ReasonNotRunning, loud, fmt.Sprintf("pod %s is being deleted", pod.Name)}
	}

	return nil
}

// claimObstacle looks for what keeps the volume behind a claim from being read through any pod.
func claimObstacle(c Claim, loud Level) *obstruction {
	if mode := c.Claim.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return &obstruction{ReasonBlock, loud, "its volumeMode is Block, and a raw block device holds no files; take a CSI snapshot of it"}
	}

	if c.Volume == nil {
		return &obstruction{ReasonUnbound, min(loud, Warning), fmt.Sprintf("the claim is not bound to a volume (its phase is %q)", c.Claim.Status.Phase)}
	}

	if c.Volume.Spec.HostPath != nil {
		return &obstruction{ReasonUnsupported, loud, fmt.Sprintf("PersistentVolume %s is a hostPath, which the kubelet doesn't mount for the pod; use the type local", c.Volume.Name)}
	}

	return nil
}

func phase(pod *corev1.Pod) string {
	if pod.Status.Phase == "" {
		return string(corev1.PodPending)
	}

	return string(pod.Status.Phase)
}
