package target_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/state"
)

func gated(t *testing.T, restoreUID, job string, s corev1.ContainerState) corev1.Pod {
	t.Helper()

	record, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: restoreUID}, Jobs: map[string]string{"data": job}}.Encode()
	require.NoError(t, err)

	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "u", Annotations: map[string]string{contract.AnnotationRestore: record}},
		Spec: corev1.PodSpec{NodeName: "n1", InitContainers: []corev1.Container{{Name: contract.GateContainer}}, Volumes: []corev1.Volume{
			{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-web-0"}}},
		}},
		Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{Name: contract.GateContainer, State: s}}},
	}
}

func TestPods(t *testing.T) {
	t.Parallel()

	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	exit := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "m"}}
	}

	for name, c := range map[string]struct {
		pod    corev1.Pod
		mutate func(*corev1.Pod)
		none   bool
		gate   state.GatePosition
		reason string
	}{
		"a gate that runs":                        {pod: gated(t, "ruid", "vr-1", running), gate: state.GateThere},
		"a gate that waits for its image":         {pod: gated(t, "ruid", "vr-1", waiting("ImagePullBackOff")), gate: state.GateAhead, reason: state.ReasonGateImagePull},
		"a gate that waits for something else":    {pod: gated(t, "ruid", "vr-1", waiting("PodInitializing")), gate: state.GateAhead},
		"a gate that opened":                      {pod: gated(t, "ruid", "vr-1", exit(0)), gate: state.GateBehind},
		"a gate that told of a failure":           {pod: gated(t, "ruid", "vr-1", exit(1)), gate: state.GateThere},
		"a gate of another restore is none":       {pod: gated(t, "other", "vr-1", running), gate: state.GateNone},
		"a gate that waits for other jobs only":   {pod: gated(t, "ruid", "vr-9", running), gate: state.GateNone},
		"an annotation without the container":     {pod: gated(t, "ruid", "vr-1", running), mutate: func(p *corev1.Pod) { p.Spec.InitContainers[0].Name = "x" }, gate: state.GateNone},
		"an unreadable annotation":                {pod: gated(t, "ruid", "vr-1", running), mutate: func(p *corev1.Pod) { p.Annotations[contract.AnnotationRestore] = "{" }, gate: state.GateNone},
		"an init container before the gate":       {pod: gated(t, "ruid", "vr-1", running), mutate: before(""), gate: state.GateThere},
		"one that mounts the volume":              {pod: gated(t, "ruid", "vr-1", running), mutate: before("data"), gate: state.GateNone},
		"a pod that mounts another claim":         {pod: gated(t, "ruid", "vr-1", running), mutate: func(p *corev1.Pod) { p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "x" }, none: true},
		"a pod without a status of its container": {pod: gated(t, "ruid", "vr-1", running), mutate: func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil }, gate: state.GateAhead},
		"a generic ephemeral volume's claim":      {pod: gated(t, "ruid", "vr-1", running), mutate: ephemeral, gate: state.GateThere},
		"a pod that is held back":                 {pod: gated(t, "other", "vr-1", running), mutate: scheduling(contract.SchedulingGate), gate: state.GateHeld},
		"a pod that somebody else holds back":     {pod: gated(t, "other", "vr-1", running), mutate: scheduling("example.com/quota"), gate: state.GateNone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := &v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{Name: "vr-1"}}
			job.Spec.Restore.UID = "ruid"
			job.Spec.Target = v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Claim: &v1alpha1.ClaimReference{Name: "data-web-0"}}

			pod := *c.pod.DeepCopy()
			if c.mutate != nil {
				c.mutate(&pod)
			}

			got := target.Pods(job, []corev1.Pod{pod})
			if c.none {
				assert.Empty(t, got)
				return
			}

			require.Len(t, got, 1)
			assert.Equal(t, c.gate, got[0].Gate)
			assert.Equal(t, c.reason, got[0].Detail.Reason)
		})
	}
}

func before(mount string) func(p *corev1.Pod) {
	return func(p *corev1.Pod) {
		first := corev1.Container{Name: "first", VolumeMounts: []corev1.VolumeMount{{Name: mount}}}
		p.Spec.InitContainers = append([]corev1.Container{first}, p.Spec.InitContainers...)
	}
}

func scheduling(gate string) func(p *corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: gate}} }
}

func ephemeral(p *corev1.Pod) {
	p.Name = "data"
	p.Spec.Volumes[0] = corev1.Volume{Name: "web-0", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}
}
