package restore

import (
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestAPodIsRestoredWithoutWhatNoNewPodMayHave(t *testing.T) {
	tests := map[string]struct {
		has  func(*corev1.PodSpec)
		left func(*corev1.PodSpec) any
		says string
		warn bool
	}{
		"it was debugged": {
			has: func(s *corev1.PodSpec) {
				s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger-x"}}}
			},
			left: func(s *corev1.PodSpec) any { return s.EphemeralContainers },
			says: "debugger-x",
		},
		"it has a deadline, and the wait for data counts": {
			has:  func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = ptr.To(int64(60)) },
			left: func(s *corev1.PodSpec) any { return s.ActiveDeadlineSeconds },
			says: "60 s", warn: true,
		},
		"its PriorityClass preempts otherwise here": {
			has:  func(s *corev1.PodSpec) { s.PreemptionPolicy = ptr.To(corev1.PreemptNever) },
			left: func(s *corev1.PodSpec) any { return s.PreemptionPolicy },
		},
		"its RuntimeClass costs something else here": {
			has: func(s *corev1.PodSpec) {
				s.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
			},
			left: func(s *corev1.PodSpec) any { return s.Overhead },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			original := recorded("web", podRecord(t, "nightly"))
			tt.has(&original.Spec)

			pod, _, err := b.pod(original)
			require.NoError(t, err)
			assert.Equal(t, contract.GateContainer, pod.Spec.InitContainers[0].Name)
			assert.Empty(t, tt.left(&pod.Spec))
			assert.Equal(t, tt.says != "", said(b, tt.says, tt.warn))

			original.Annotations[contract.AnnotationVolumes] = `{"version":9}`
			pod, _, err = b.pod(original)
			require.NoError(t, err)
			assert.Len(t, pod.Spec.SchedulingGates, 1)
			assert.Empty(t, tt.left(&pod.Spec), "nor may one that is held back")

			delete(original.Annotations, contract.AnnotationVolumes)
			pod, _, err = newBench(t).pod(original)
			require.NoError(t, err)
			assert.NotEmpty(t, tt.left(&pod.Spec), "one without data is none of ours")
		})
	}
}

// said reports whether the log has a line with the text, of the level.
func said(b *bench, text string, warn bool) bool {
	level := logrus.InfoLevel
	if warn {
		level = logrus.WarnLevel
	}

	for _, e := range b.lines.AllEntries() {
		if text != "" && e.Level == level && strings.Contains(e.Message, text) {
			return true
		}
	}

	return false
}
