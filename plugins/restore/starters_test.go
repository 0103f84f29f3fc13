package restore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestAClaimIsNotMadeForAPodThatWouldStartOnItEmpty(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(pod *corev1.Pod)
		there  bool
		into   string
		says   string
	}{
		"one of a controller": {change: func(pod *corev1.Pod) {
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d", UID: "r", Controller: ptr.To(true)}}
		}, says: "pod waiting of ReplicaSet web-5d"},
		"a bare one":         {says: "pod waiting waits for the claim"},
		"one of a new place": {change: func(pod *corev1.Pod) { pod.Namespace = "shop2" }, into: "shop2", says: "pod waiting"},
		"of another claim":   {change: func(pod *corev1.Pod) { pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "other" }},
		"elsewhere":          {change: func(pod *corev1.Pod) { pod.Namespace = "shop2" }},
		"at a gate": {change: func(pod *corev1.Pod) {
			pod.Spec.InitContainers = []corev1.Container{{Name: contract.GateContainer}}
		}},
		"held back": {change: func(pod *corev1.Pod) {
			pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: contract.SchedulingGate}}
		}},
		"that has ended":        {change: func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed }},
		"that is being deleted": {change: func(pod *corev1.Pod) { pod.Finalizers = []string{"x/y"} }},
		"beside a claim in use": {there: true},
		"of a claim of its own": {change: func(pod *corev1.Pod) {
			pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
		}},
		"a staging pod that goes": {change: func(pod *corev1.Pod) { pod.Labels = map[string]string{contract.LabelStaging: "vb-1"} }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tt.into != "" {
				b.restore.Spec.NamespaceMapping = map[string]string{"shop": tt.into}
			}

			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "waiting"},
				Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
				}}}},
				Status: corev1.PodStatus{Phase: corev1.PodPending},
			}
			if tt.change != nil {
				tt.change(pod)
			}

			require.NoError(t, b.client.Create(t.Context(), pod))

			if len(pod.Finalizers) > 0 {
				require.NoError(t, b.client.Delete(t.Context(), pod))
			}

			if tt.there {
				require.NoError(t, b.client.Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"}}))
			}

			saved := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "data", Annotations: map[string]string{contract.AnnotationVolume: claimRecord(t, "nightly")},
			}}

			_, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: b.item(saved), ItemFromBackup: b.item(saved), Restore: b.restore})
			if tt.says == "" {
				require.NoError(t, err)
				assert.Len(t, b.jobs(), 1)

				return
			}

			require.ErrorContains(t, err, "claim shop/data is not restored")
			require.ErrorContains(t, err, tt.says)
			assert.Empty(t, b.jobs(), "nothing is asked for")
		})
	}
}
