package target

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/state"
)

// ClaimPods returns those of the pods that mount the claim: what no container
// mounts, the kubelet doesn't either. All pods must be of the claim's namespace.
func ClaimPods(claim string, pods []corev1.Pod) []state.TargetPod {
	var out []state.TargetPod

	for i := range pods {
		if used(claim, &pods[i]) {
			out = append(out, bare(&pods[i]))
		}
	}

	return out
}

func used(claim string, pod *corev1.Pod) bool {
	var mounts []corev1.VolumeMount

	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		mounts = append(mounts, c.VolumeMounts...)
	}

	for _, c := range pod.Spec.EphemeralContainers {
		mounts = append(mounts, c.VolumeMounts...)
	}

	return slices.ContainsFunc(mounts, func(m corev1.VolumeMount) bool {
		v := Volume(pod, m.Name)

		return v != nil && v1alpha1.ClaimName(pod, v) == claim
	})
}

// StagedFor returns the name of the job whose staging pod it is, or an empty string.
// A label says so; that it is true is seen by what the pod is: what mounts the
// volume in it does nothing.
func StagedFor(pod *corev1.Pod) string {
	job := pod.Labels[contract.LabelStaging]
	if job == "" || pod.Name != contract.StagingPodName(job) {
		return ""
	}

	if v := Volume(pod, contract.StagingVolume); v == nil || v.PersistentVolumeClaim == nil || claims(pod) > 1 {
		return ""
	}

	debugged := slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool {
		return mountsStaged(corev1.Container(c.EphemeralContainerCommon))
	})

	if debugged || slices.ContainsFunc(pod.Spec.InitContainers, mountsStaged) || slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return mountsStaged(c) && (!holds(c) || !onlyReads(c))
	}) {
		return ""
	}

	return job
}

// claims counts the pod's volumes that are claims: one claim can be there under two names.
func claims(pod *corev1.Pod) int {
	n := 0

	for i := range pod.Spec.Volumes {
		if v1alpha1.ClaimName(pod, &pod.Spec.Volumes[i]) != "" {
			n++
		}
	}

	return n
}

func mountsStaged(c corev1.Container) bool {
	mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.StagingVolume })

	return mounted || slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == contract.StagingVolume })
}

// holds reports whether the container does nothing. The node's daemon keeps no commands in its
// cache, and asks the API server where it matters.
func holds(c corev1.Container) bool {
	return c.Name == contract.StagingContainer && slices.Equal(c.Command, []string{contract.GateCommand, contract.StagingHold}) && len(c.Args) == 0
}

// onlyReads reports whether nothing of the container can write to the volume, which a shell in it could.
func onlyReads(c corev1.Container) bool {
	return !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.StagingVolume && !m.ReadOnly })
}

func stagingStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == contract.StagingContainer {
			return &pod.Status.ContainerStatuses[i]
		}
	}

	return nil
}

// stagingGate returns where a staging pod stands: its volume is mounted when it runs, and nothing in it writes.
func stagingGate(p state.TargetPod) state.GatePosition {
	if p.Running {
		return state.GateThere
	}

	return state.GateAhead
}
