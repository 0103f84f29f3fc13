package restore

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sized has the claim ask for as much as its original volume held: a claim may ask for less than it is given, and a
// driver that keeps to sizes would make a new volume that the data doesn't fit into. Where the larger claim can't be
// had, it is left as it was, and both sizes are said.
func (s *Session) sized(ctx context.Context, log logrus.FieldLogger, item *unstructured.Unstructured, original runtime.Unstructured, r *velerov1.Restore) {
	var was, claim corev1.PersistentVolumeClaim

	// What can't be read, the API server says when the claim is made.
	if runtime.DefaultUnstructuredConverter.FromUnstructured(original.UnstructuredContent(), &was) != nil ||
		runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &claim) != nil {
		return
	}

	had, asked := was.Status.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if had.Cmp(asked) <= 0 {
		return
	}

	if why := s.smaller(ctx, item, &claim, had, r); why != "" {
		log.Warnf("claim %s asks for %s, and its original volume held %s: its data may not fit, for %s", claim.Name, asked.String(), had.String(), why)

		return
	}

	if err := unstructured.SetNestedField(item.Object, had.String(), "spec", "resources", "requests", "storage"); err != nil {
		log.Warnf("claim %s asks for %s, and its original volume held %s: its data may not fit, for its request can't be raised: %v", claim.Name, asked.String(), had.String(), err)

		return
	}

	log.Infof("claim %s asks for %s instead of %s from now on, for that is what its original volume held", claim.Name, had.String(), asked.String())
}

// smaller returns why the claim can't be made to ask for the size, or empty.
func (s *Session) smaller(ctx context.Context, item *unstructured.Unstructured, claim *corev1.PersistentVolumeClaim, size resource.Quantity, r *velerov1.Restore) string {
	c, err := s.connect()
	if err != nil {
		return err.Error()
	}

	key := types.NamespacedName{Namespace: mapped(claim.Namespace, r), Name: claim.Name}

	var there corev1.PersistentVolumeClaim
	if err := c.Get(ctx, key, &there); err == nil {
		has := there.Status.Capacity[corev1.ResourceStorage]
		if has.Cmp(size) >= 0 {
			return ""
		}

		return fmt.Sprintf("claim %s is there already, with a volume of %s", key, has.String())
	}

	var class storagev1.StorageClass

	switch name := claim.Spec.StorageClassName; {
	case name == nil:
	case *name == "":
		return "it has no storage class, and is bound to a volume that somebody makes by hand"
	case client.IgnoreNotFound(c.Get(ctx, types.NamespacedName{Name: *name}, &class)) != nil, class.Name == "":
		return fmt.Sprintf("storage class %s can't be read", *name)
	case class.Provisioner == "kubernetes.io/no-provisioner":
		return fmt.Sprintf("volumes of storage class %s are made by hand", *name)
	}

	return refusedSize(ctx, c, item, key, size)
}

// refusedSize asks the API server, without making anything, whether it takes the larger claim: a quota or a range may forbid it.
func refusedSize(ctx context.Context, c client.Client, item *unstructured.Unstructured, key types.NamespacedName, size resource.Quantity) string {
	larger := &unstructured.Unstructured{Object: map[string]any{"spec": item.DeepCopy().Object["spec"]}}
	larger.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"))
	larger.SetNamespace(key.Namespace)
	larger.SetName(key.Name)
	larger.SetLabels(item.GetLabels())

	if err := unstructured.SetNestedField(larger.Object, size.String(), "spec", "resources", "requests", "storage"); err != nil {
		return err.Error()
	}

	err := c.Create(ctx, larger, client.DryRunAll)
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return "the larger one is refused: " + err.Error()
	}

	return ""
}
