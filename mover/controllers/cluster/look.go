package cluster

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/state"
)

// decide has a job's next step decided by pods that all jobs of a namespace look at. That it goes on waiting may be
// decided by a list that is a few seconds old, as long as nothing was heard of the pods; all else is decided again by a
// list of this moment.
func (c *Cluster) decide(
	status v1alpha1.JobStatus, by func(podlist.Age) (state.Decision, []state.TargetPod, bool, error),
) (state.Decision, []state.TargetPod, error) {
	dec, pods, stale, err := by(c.age(status))
	if err != nil {
		return state.Decision{}, nil, err
	}

	if dec.Action != state.ActionNone || dec.Phase.Terminal() {
		dec, pods, stale, err = by(podlist.Age{Most: c.Bounds.Soon})
	}

	if stale {
		dec.RequeueAfter = min(dec.RequeueAfter, c.Bounds.Soon)
	}

	return dec, pods, err
}

// age returns how old the list of pods may be by which a job that stands so is looked at. What restored pods do, events
// tell; of staging pods there are none.
func (c *Cluster) age(s v1alpha1.JobStatus) podlist.Age {
	switch s.Reason {
	case state.ReasonWaitingForPods, state.ReasonPodNotFound, state.ReasonPodUnscheduled, state.ReasonGateNotReached,
		state.ReasonGateImagePull, state.ReasonNoDaemonOnNode, state.ReasonClaimPending:
		return podlist.Age{Most: c.Bounds.Recheck, Changed: c.Bounds.Soon}
	default:
		return podlist.Age{Most: c.Bounds.Soon, Changed: c.Bounds.Soon}
	}
}

// faulty is what counts of a claim that may not exist, and why it gets no volume.
func (c *Cluster) faulty(ctx context.Context, claim *corev1.PersistentVolumeClaim) (state.Claim, error) {
	s := seen(claim)
	if claim == nil {
		return s, nil
	}

	var err error

	s.Fault, err = c.claimFault(ctx, claim)

	return s, err
}

// claimFault returns why a claim that is pending gets no volume, as far as Kubernetes says so: the scheduler's word
// about the pod is only that it has no node.
func (c *Cluster) claimFault(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*state.ClaimFault, error) {
	if claim.Status.Phase != corev1.ClaimPending && claim.Status.Phase != "" || claim.Spec.VolumeName != "" {
		return nil, nil
	}

	said, err := c.lastWarning(ctx, claim)
	if err != nil {
		return nil, err
	}

	name := claim.Namespace + "/" + claim.Name

	if class := claim.Spec.StorageClassName; class != nil && *class != "" {
		err := c.Direct.Get(ctx, types.NamespacedName{Name: *class}, &storagev1.StorageClass{})

		switch {
		case apierrors.IsNotFound(err) && said != "":
			return &state.ClaimFault{Final: true, Message: fmt.Sprintf(
				"PersistentVolumeClaim %s gets no volume: %s; make the storage class, or have Velero map it to another one, delete the claim and its pods and restore again", name, said)}, nil
		case client.IgnoreNotFound(err) != nil:
			return nil, fmt.Errorf("read StorageClass %s: %w", *class, err)
		}
	}

	if said == "" {
		return nil, nil
	}

	return &state.ClaimFault{Message: fmt.Sprintf("PersistentVolumeClaim %s gets no volume: %s", name, said)}, nil
}

// lastWarning returns the last thing that Kubernetes has warned of about the claim; empty if it has not.
func (c *Cluster) lastWarning(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	var list corev1.EventList

	err := c.Direct.List(ctx, &list, client.InNamespace(claim.Namespace), client.MatchingFieldsSelector{
		Selector: fields.OneTermEqualSelector("involvedObject.uid", string(claim.UID)),
	})
	if err != nil {
		return "", fmt.Errorf("list the events of PersistentVolumeClaim %s/%s: %w", claim.Namespace, claim.Name, err)
	}

	var last *corev1.Event

	for i := range list.Items {
		// Our own say no more than what they were made from.
		e := &list.Items[i]
		if e.Type == corev1.EventTypeWarning && !ours(e) && (last == nil || !e.LastTimestamp.Before(&last.LastTimestamp)) {
			last = e
		}
	}

	if last == nil {
		return "", nil
	}

	return last.Reason + ": " + last.Message, nil
}

// ours reports whether a part of Estiba has made the event.
func ours(e *corev1.Event) bool {
	return e.Source.Component == contract.ComponentController || e.Source.Component == contract.ComponentNode
}
