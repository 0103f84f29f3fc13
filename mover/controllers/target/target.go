// Package target turns the pods of a cluster into what a restore needs to know
// of them: which mount its volume, and where each stands with respect to its
// gate. It is pure: pods in, values out.
package target

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/state"
)

// Pods returns those of the pods that mount the restore's volume. All pods must
// be of the target's namespace.
func Pods(job *v1alpha1.VolumeRestore, pods []corev1.Pod) []state.TargetPod {
	var out []state.TargetPod

	for i := range pods {
		if mounts(job.Spec.Target, &pods[i]) {
			out = append(out, one(job, &pods[i]))
		}
	}

	return out
}

func mounts(v v1alpha1.VolumeReference, pod *corev1.Pod) bool {
	if v.Kind != v1alpha1.VolumePersistentVolumeClaim {
		return pod.Name == v.Pod.Name
	}

	if v.Claim == nil {
		// Nobody mounts what has no name.
		return false
	}

	for i := range pod.Spec.Volumes {
		if v1alpha1.ClaimName(pod, &pod.Spec.Volumes[i]) == v.Claim.Name {
			return true
		}
	}

	return false
}

// Volume returns the pod's volume of that name, or nil.
func Volume(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}

	return nil
}

// Finished reports whether the pod's containers have ended for good.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func one(job *v1alpha1.VolumeRestore, pod *corev1.Pod) state.TargetPod {
	p := bare(pod)

	switch {
	case p.StagedFor != "":
		p.Gate = stagingGate(p)
	case listed(job, pod) && !passedBy(job, pod):
		p.Gate = Gate(pod)
	case held(pod):
		p.Gate = state.GateHeld
	}

	return p
}

// held reports whether our scheduling gate holds the pod back.
func held(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == contract.SchedulingGate })
}

// bare returns what holds for a pod whatever it is to be done for.
func bare(pod *corev1.Pod) state.TargetPod {
	p := state.TargetPod{
		Name: pod.Name, UID: string(pod.UID), Node: pod.Spec.NodeName, Created: pod.CreationTimestamp.Time,
		Deleting: !pod.DeletionTimestamp.IsZero(), Finished: Finished(pod), Running: pod.Status.Phase == corev1.PodRunning,
		StagedFor: StagedFor(pod),
	}

	if maker := metav1.GetControllerOf(pod); maker != nil {
		p.Maker = maker.Kind + " " + maker.Name
	}

	for _, c := range pod.Status.Conditions {
		p.Disrupted = p.Disrupted || c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue

		if c.Type != corev1.PodScheduled {
			continue
		}

		if c.Status == corev1.ConditionTrue {
			p.Scheduled = c.LastTransitionTime.Time
		} else {
			p.Detail = state.Finding{Reason: state.ReasonPodUnscheduled, Message: c.Message}
		}
	}

	if p.Node != "" {
		p.Detail = detail(pod)
	}

	return p
}

// listed reports whether the pod's own gate waits for the job.
func listed(job *v1alpha1.VolumeRestore, pod *corev1.Pod) bool {
	record, err := contract.DecodeGateRecord(pod.Annotations[contract.AnnotationRestore])
	if err != nil || record.Restore.UID != string(job.Spec.Restore.UID) {
		return false
	}

	for _, name := range record.Jobs {
		if name == job.Name {
			return true
		}
	}

	return false
}

// passedBy reports whether an init container that runs before the gate, put there
// at admission perhaps, mounts the volume: the gate only holds back what comes after it.
func passedBy(job *v1alpha1.VolumeRestore, pod *corev1.Pod) bool {
	for i := range max(gateIndex(pod), 0) {
		for _, m := range pod.Spec.InitContainers[i].VolumeMounts {
			if v := Volume(pod, m.Name); v != nil && isTarget(job.Spec.Target, pod, v) {
				return true
			}
		}
	}

	return false
}

func isTarget(t v1alpha1.VolumeReference, pod *corev1.Pod, v *corev1.Volume) bool {
	if t.Kind == v1alpha1.VolumePersistentVolumeClaim {
		return v1alpha1.ClaimName(pod, v) == t.Claim.Name
	}

	return v.Name == t.Name
}

func gateIndex(pod *corev1.Pod) int {
	return slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == contract.GateContainer })
}

// Gate returns where the pod stands with respect to the gate in its init containers, whatever the gate waits for.
func Gate(pod *corev1.Pod) state.GatePosition {
	if gateIndex(pod) < 0 {
		return state.GateNone
	}

	s := gateStatus(pod)

	switch {
	case s == nil:
		return state.GateAhead
	case s.State.Terminated != nil && s.State.Terminated.ExitCode == 0:
		return state.GateBehind
	case s.State.Running != nil:
		return state.GateThere
	case s.State.Terminated != nil, s.LastTerminationState.Terminated != nil:
		// It ended with the message of a failed restore and is being started
		// again: the pod's volumes are mounted, and nothing else runs.
		return state.GateThere
	default:
		return state.GateAhead
	}
}

// Waits reports whether the pod is kept from starting until a restore has filled its volumes.
func Waits(pod *corev1.Pod) bool {
	at := Gate(pod)

	return held(pod) || at == state.GateAhead || at == state.GateThere
}

func gateStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.InitContainerStatuses {
		if pod.Status.InitContainerStatuses[i].Name == contract.GateContainer {
			return &pod.Status.InitContainerStatuses[i]
		}
	}

	return nil
}

func detail(pod *corev1.Pod) state.Finding {
	if pod.Status.Message != "" {
		return state.Finding{Message: pod.Status.Reason + ": " + pod.Status.Message}
	}

	s, pull := gateStatus(pod), state.ReasonGateImagePull
	if StagedFor(pod) != "" {
		s, pull = stagingStatus(pod), state.ReasonStagingImagePull
	}

	if s == nil || s.State.Waiting == nil || s.State.Waiting.Message == "" {
		return state.Finding{}
	}

	f := state.Finding{Message: s.State.Waiting.Reason + ": " + s.State.Waiting.Message}

	switch s.State.Waiting.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError":
		f.Reason = pull
	}

	return f
}
