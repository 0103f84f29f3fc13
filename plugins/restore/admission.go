package restore

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
)

// admitted asks the API server, without making anything, whether it would take
// the pod with this gate. One that it refuses is made anew by its controller, without the gate.
func (s *Session) admitted(ctx context.Context, item *unstructured.Unstructured, container corev1.Container, r *velerov1.Restore) error {
	gated := item.DeepCopy()
	if err := inject(gated, container, r, nil); err != nil {
		return err
	}

	refusal, err := s.refusal(ctx, gated, r)
	if err != nil || refusal == nil {
		return err
	}

	// Where it isn't the gate's fault, Velero says so when it makes the pod.
	if other, err := s.refusal(ctx, item, r); err != nil || other != nil {
		return err
	}

	return fmt.Errorf("the namespace admits the pod, but not with the gate's container: %w; set that up as the namespace wants it, in the ConfigMap with the label %s",
		refusal, contract.LabelPluginConfig)
}

// refusal gives why the API server would not take the pod; nil where it would, or can't tell now.
func (s *Session) refusal(ctx context.Context, item *unstructured.Unstructured, r *velerov1.Restore) (refusal, err error) {
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

	err = c.Create(ctx, pod, client.DryRunAll)
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return err, nil
	}

	return nil, nil
}
