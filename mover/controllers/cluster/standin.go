package cluster

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/state"
)

// ReconcileAdopted takes the owner that stood in for a restored pod's controller off the pod, once the controller has
// adopted it: the garbage collector removes no pod that has an owner left, and the pod would outlive its workload.
func (c *Cluster) ReconcileAdopted(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pod corev1.Pod

	err := c.Client.Get(ctx, req.NamespacedName, &pod)
	if apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil
	}

	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read pod %s from the cache: %w", req, err)
	}

	owners, adopted := target.WithoutStandIn(&pod, c.Namespace)
	if !adopted {
		return ctrl.Result{}, nil
	}

	before := pod.DeepCopy()
	pod.OwnerReferences = owners

	// The list is written as a whole: a controller that lets go of the pod meanwhile makes it a conflict.
	err = c.Client.Patch(ctx, &pod, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		c.event(before, true, state.ReasonStandInStays, fmt.Sprintf(
			"the owner that stood in for the pod's controller could not be taken off: %v; if you delete the pod's workload, delete the pod, too", err))
	}

	if err != nil {
		err = fmt.Errorf("take the owner that stood in for its controller off pod %s: %w", req, err)
	}

	return settle(0, err)
}

// adopted reports whether an owner of the pod is to be taken off.
func (c *Cluster) adopted(o client.Object) bool {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return false
	}

	_, adopted := target.WithoutStandIn(pod, c.Namespace)

	return adopted
}
