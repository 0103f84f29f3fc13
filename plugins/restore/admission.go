package restore

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// form is how a pod is restored with its gate.
type form struct {
	container corev1.Container
	// owner stands in for the controller that Velero takes off the pod, until that adopts it; nil where none is needed.
	owner *metav1.OwnerReference
}

// admitted asks the API server, without making anything, in which form it would take the pod with its gate: with
// the first of the containers that it takes and, where it takes none and the pod was a controller's, with an owner.
// A pod that it refuses is made anew by its controller, without the gate.
func (s *Session) admitted(ctx context.Context, item *unstructured.Unstructured, containers []corev1.Container, original *corev1.Pod, r *velerov1.Restore) (form, error) {
	for _, owned := range []bool{false, true} {
		f := form{}

		if owned {
			if f.owner = s.ownerFor(ctx, original, r); f.owner == nil {
				break
			}
		}

		refusal, err := s.first(ctx, item, containers, &f, r)
		if err != nil || refusal == nil {
			return f, err
		}

		// Where it would not be taken either if it were held back, it isn't the gate's fault, and an owner may help.
		heldBack := item.DeepCopy()
		if err := holdBack(heldBack, refusal.Error()); err != nil {
			return form{}, err
		}

		other, err := s.refusal(ctx, heldBack, f.owner, r)
		if err != nil {
			return form{}, err
		}

		if other == nil {
			return form{}, fmt.Errorf("the namespace admits the pod, but not with the gate's container: %w; set that up as the namespace wants it, in the ConfigMap with the label %s",
				refusal, contract.LabelPluginConfig)
		}
	}

	// Velero says why when it makes the pod.
	return form{container: containers[0]}, nil
}

// first puts the first of the containers into the form with which the API server takes the pod; it returns why it takes none.
func (s *Session) first(ctx context.Context, item *unstructured.Unstructured, containers []corev1.Container, f *form, r *velerov1.Restore) (refusal, err error) {
	for _, c := range containers {
		gated := item.DeepCopy()
		if err := inject(gated, form{c, f.owner}, r, nil); err != nil {
			return nil, err
		}

		refusal, err = s.refusal(ctx, gated, f.owner, r)
		if err != nil || refusal == nil {
			f.container = c

			return nil, err
		}
	}

	return refusal, nil
}

// refusal returns why the API server would not take the pod; nil where it would, or can't tell now.
func (s *Session) refusal(ctx context.Context, item *unstructured.Unstructured, owner *metav1.OwnerReference, r *velerov1.Restore) (refusal, err error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	pod := &unstructured.Unstructured{Object: map[string]any{"spec": item.DeepCopy().Object["spec"]}}
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	pod.SetNamespace(mapped(item.GetNamespace(), r))
	pod.SetName(item.GetName())
	pod.SetLabels(item.GetLabels())
	pod.SetAnnotations(item.GetAnnotations())

	if owner != nil {
		pod.SetOwnerReferences([]metav1.OwnerReference{*owner})
	}

	err = c.Create(ctx, pod, client.DryRunAll)
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return err, nil
	}

	return nil, nil
}

// ownerFor returns an owner for a pod that a controller has made: a namespace may admit no pod without one, and the
// controller, which adopts the pod, is not there yet. It is the pod's first claim, which can't go while the pod is
// there, or else its ServiceAccount; nil where the pod had no controller, or neither can be read.
func (s *Session) ownerFor(ctx context.Context, original *corev1.Pod, r *velerov1.Restore) *metav1.OwnerReference {
	if metav1.GetControllerOf(original) == nil {
		return nil
	}

	c, err := s.connect()
	if err != nil {
		return nil
	}

	find := func(kind, name string, o client.Object) *metav1.OwnerReference {
		key := types.NamespacedName{Namespace: mapped(original.Namespace, r), Name: name}
		if name == "" || c.Get(ctx, key, o) != nil {
			return nil
		}

		return &metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: name, UID: o.GetUID()}
	}

	for i := range original.Spec.Volumes {
		source := original.Spec.Volumes[i].PersistentVolumeClaim
		if source == nil {
			continue
		}

		if owner := find(string(v1alpha1.VolumePersistentVolumeClaim), source.ClaimName, &corev1.PersistentVolumeClaim{}); owner != nil {
			return owner
		}
	}

	return find("ServiceAccount", original.Spec.ServiceAccountName, &corev1.ServiceAccount{})
}
