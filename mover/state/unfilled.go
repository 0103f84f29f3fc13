package state

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// The reasons of the condition ClaimMarked of a VolumeRestore.
const (
	// MarkedUnfilled: the claim was made by the restore, or an earlier one hadn't filled it.
	MarkedUnfilled = "Unfilled"
	// MarkedInUse: the claim was there before, and what it held was its own.
	MarkedInUse = "InUse"
)

// Mark returns the condition by which a job remembers what its claim was before the job marked it,
// or nil if it does already, or has no claim to mark.
func Mark(job *v1alpha1.VolumeRestore, c Claim, now time.Time) *metav1.Condition {
	if job.Spec.Target.Claim == nil || !c.Found || meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionClaimMarked) != nil {
		return nil
	}

	d := &metav1.Condition{
		Type: v1alpha1.ConditionClaimMarked, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
		Reason:  MarkedUnfilled,
		Message: fmt.Sprintf("%s holds nothing of its own until it is filled", claimName(job.Spec.Target)),
	}

	// Both times are the API server's. A job is made before the claim that its restore makes.
	if c.Unfilled == "" && c.Created.Before(job.CreationTimestamp.Time) {
		d.Reason = MarkedInUse
		d.Message = fmt.Sprintf("%s was there before, and keeps what it holds if nothing is written", claimName(job.Spec.Target))
	}

	return d
}

// Unmarkable returns the job's condition for a claim that could not be marked.
func Unmarkable(job *v1alpha1.VolumeRestore, now time.Time) metav1.Condition {
	d := metav1.Condition{Type: v1alpha1.ConditionClaimMarked, Reason: MarkedUnfilled, LastTransitionTime: metav1.NewTime(now)}
	if m := meta.FindStatusCondition(job.Status.Conditions, d.Type); m != nil {
		d = *m
	}

	d.Status = metav1.ConditionFalse

	return d
}

// Filled reports whether the mark is to be taken off the claim of a job that has ended: because the claim is
// filled, or because it was in use before and nothing was written into it.
func Filled(job *v1alpha1.VolumeRestore, c Claim) bool {
	switch {
	case job.Spec.Target.Claim == nil, !c.Found, c.Unfilled != job.Name, !job.Status.Phase.Terminal():
		return false
	case job.Status.Phase == v1alpha1.PhaseCompleted:
		// A claim of the same name that was made later is another one.
		return job.Status.ClaimUID == "" || string(job.Status.ClaimUID) == c.UID
	default:
		m := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionClaimMarked)

		return m != nil && m.Reason == MarkedInUse && job.Status.WritingSince == nil
	}
}

// Owned reports whether what is in the job's volume is known to be its own: its claim was there before the job, and
// no restore had left it unfilled. Of a volume without a claim nobody knows.
func Owned(job *v1alpha1.VolumeRestore) bool {
	m := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionClaimMarked)

	return job.Spec.Target.Claim != nil && m != nil && m.Reason == MarkedInUse
}

// Marks reports whether the claim of a restore is to be marked before the decision is carried out.
func (d Decision) Marks() bool { return d.Action == ActionRoute || d.Action == ActionStage }

// heldByRestore waits for another restore that fills the claim, which has bounds of its own. A staging pod
// of the job would be in its way.
func heldByRestore(job *v1alpha1.VolumeRestore, v RestoreView, b Bounds) *Decision {
	if v.Filling == "" || v.Filling == job.Name {
		return nil
	}

	d := &Decision{
		Phase: v1alpha1.PhaseAccepted, Reason: ReasonClaimHeld, Action: ActionNone, RequeueAfter: b.Recheck,
		Message: fmt.Sprintf("VolumeRestore %s fills %s; waits until it has ended", v.Filling, claimName(job.Spec.Target)),
	}

	if stage, _, _ := split(job.Name, v.Pods); stage != nil {
		d.Action = ActionUnstage
	}

	return d
}

// RestoreNotDone is the finding about a claim that a backup must not take for whole.
func RestoreNotDone(ref v1alpha1.VolumeReference, why string) Finding {
	return Finding{ReasonRestoreNotDone, fmt.Sprintf("%s doesn't hold its data: %s", claimName(ref), why)}
}

// NotYetUnmarked is the finding about a claim that its restore has filled, and that the controller is about to say so of.
func NotYetUnmarked(ref v1alpha1.VolumeReference, by string) Finding {
	return Finding{ReasonRestoreNotDone, fmt.Sprintf("waits for the controller to say that %s is filled: VolumeRestore %s has Completed", claimName(ref), by)}
}

// Refilled is the finding about a claim that a restore has begun to write into while it was read.
func Refilled(ref v1alpha1.VolumeReference, by string) Finding {
	return Finding{ReasonRestoreNotDone, fmt.Sprintf(
		"VolumeRestore %s began to fill %s while it was backed up; back it up again when that has Completed", by, claimName(ref))}
}

// heldByReader waits for the staging pod of another job, through which the volume is read while it must not change.
func heldByReader(job *v1alpha1.VolumeRestore, pods []TargetPod, b Bounds) *Decision {
	_, _, others := split(job.Name, pods)
	if len(others) == 0 {
		return nil
	}

	d := heldBy(others[0], claimName(job.Spec.Target), b)

	return &d
}
