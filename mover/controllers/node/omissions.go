package node

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

// keepOmissions writes down whether a completed job left out anything that somebody could miss.
func (d *drive) keepOmissions(list []v1alpha1.Omission, dec state.Decision) {
	if dec.Reason == state.ReasonLeftEmpty {
		return // There was nothing that it could have kept.
	}

	c := metav1.Condition{
		Type: v1alpha1.ConditionNothingOmitted, Status: metav1.ConditionTrue, Reason: state.ReasonNothingOmitted,
		LastTransitionTime: metav1.NewTime(d.Clock.Now()),
	}

	var missed []v1alpha1.Omission

	for _, o := range list {
		if !engine.OmissionReason(o.Reason).Harmless() {
			missed = append(missed, o)
		}
	}

	if len(missed) > 0 {
		c.Status, c.Reason = metav1.ConditionFalse, state.ReasonOmissions
		c.Message = d.omitted + ": " + state.Omitted(missed)
	}

	meta.SetStatusCondition(&d.status.Conditions, c)
}

// tellOmissions warns of what a completed job left out.
func (d *drive) tellOmissions() {
	c := meta.FindStatusCondition(d.status.Conditions, v1alpha1.ConditionNothingOmitted)
	if c == nil || c.Status != metav1.ConditionFalse {
		return
	}

	d.Events.Event(d.object, corev1.EventTypeWarning, c.Reason, c.Message)

	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: d.pod.Namespace, Name: d.pod.Name, UID: d.podUID}
	if d.claim != "" {
		about = &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: d.pod.Namespace, Name: d.claim, UID: d.claimUID}
	}

	d.Events.Event(about, corev1.EventTypeWarning, c.Reason, fmt.Sprintf("%s %s: %s", d.kind, d.object.GetName(), c.Message))
}
