package target

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/contract"
)

// WithoutStandIn returns the pod's owners without the one that stood in for its controller when it was restored, and
// reports whether that one is to be taken off: the pod's controller has adopted it, and it was restored by the install
// whose Velero has the namespace. A pod that nobody has adopted keeps it, for it was admitted with an owner only.
func WithoutStandIn(pod *corev1.Pod, namespace string) (owners []metav1.OwnerReference, adopted bool) {
	if len(pod.OwnerReferences) < 2 || metav1.GetControllerOfNoCopy(pod) == nil || !pod.DeletionTimestamp.IsZero() {
		return nil, false
	}

	record, err := contract.DecodeGateRecord(pod.Annotations[contract.AnnotationRestore])
	if err != nil || record.StandIn == "" || !record.Of(namespace) {
		return nil, false
	}

	owners = slices.DeleteFunc(slices.Clone(pod.OwnerReferences), func(o metav1.OwnerReference) bool {
		controls := o.Controller != nil && *o.Controller

		return string(o.UID) == record.StandIn && !controls
	})

	return owners, len(owners) < len(pod.OwnerReferences)
}
