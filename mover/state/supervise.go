package state

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// ConditionReady is the type of the condition that says what a job waits for.
// Its last transition is when the job began to wait for just that.
const ConditionReady = "Ready"

// ConditionFenced is the type of the condition that says which fences the worker ran behind.
const ConditionFenced = "Fenced"

// ConditionCancel is the type of the condition that says why the controller has asked for the end of a job.
const ConditionCancel = "CancelRequested"

// canceled returns why a job was cancelled: what the controller has written down, Velero's bound for
// its operation, or else somebody's wish. Again is the command that makes another one.
func canceled(job metav1.Object, s v1alpha1.JobStatus, again string) Finding {
	if c := meta.FindStatusCondition(s.Conditions, ConditionCancel); c != nil {
		return Finding{c.Reason, c.Message}
	}

	if bound, ok := job.GetAnnotations()[v1alpha1.AnnotationOperationTimeout]; ok {
		return Finding{ReasonOperationTimedOut, fmt.Sprintf(
			"Velero waits no longer than %s for an operation (spec.itemOperationTimeout); give it more time: %s --item-operation-timeout 12h", Cut(bound), again)}
	}

	return Finding{ReasonCancelRequested, "the job was cancelled on request (spec.cancel)"}
}

func wish(cancel bool, f Finding) *Finding {
	if !cancel {
		return nil
	}

	return &f
}

// The commands that make another backup or restore.
const (
	againBackup  = "velero backup create"
	againRestore = "velero restore create"
)

// WaitingSince returns since when the job waits for the reason, if it does.
func WaitingSince(s v1alpha1.JobStatus, reason string) (time.Time, bool) {
	c := meta.FindStatusCondition(s.Conditions, ConditionReady)
	if c == nil || c.Reason != reason {
		return time.Time{}, false
	}

	return c.LastTransitionTime.Time, true
}

// Supervision is what the controller sees of a job that has been given to a node.
type Supervision struct {
	Owner Owner
	// Node the job was given to; empty if none.
	Node string
	// Given is when.
	Given time.Time
	// Heartbeat of that node's daemon.
	Heartbeat Heartbeat
	// Awaited says that a pod stands at, or before, a gate that asks for the job.
	Awaited bool
}

// Subject is what the controller needs to know of a job of any kind.
type Subject struct {
	Status  v1alpha1.JobStatus
	Created time.Time
	Cancel  bool
	// Asker names the owner for people, and the field that names it; Again is the command that makes another one.
	Asker, Again string
}

// Supervise says what the controller does about a job that is a node's work:
// nothing, unless its owner or its node is gone, or it is time to remove it.
func Supervise(j Subject, v Supervision, now time.Time, b Bounds) Decision {
	if j.Status.Phase.Terminal() {
		return collect(j, v, now, b)
	}

	if d := lostNode(j, v, now, b); d != nil {
		return *d
	}

	d := stay(j.Status)
	d.RequeueAfter = b.NodeLost / 8

	// One that has ended with something in it to be restored still needs what its records name.
	if f := ownerEnded(v.Owner); f != nil && !j.Cancel {
		d.Action, d.Reason = ActionRequestCancel, f.Reason
		d.Message = fmt.Sprintf("%s: %s; make another one (%s)", j.Asker, f.Message, j.Again)
	}

	return d
}

func lostNode(j Subject, v Supervision, now time.Time, b Bounds) *Decision {
	var f Finding

	switch {
	case v.Node == "":
		f = Finding{ReasonNotRouted, "the job names no node (label estiba.dev/node)"}
	case v.Heartbeat.Renewed.IsZero():
		if now.Sub(v.Given) < b.NoDaemon {
			return nil
		}

		f = Finding{ReasonNoDaemonOnNode, noDaemon(v.Node)}
	default:
		silent := now.Sub(v.Heartbeat.Renewed)
		if silent < b.NodeLost {
			return nil
		}

		f = Finding{ReasonNodeLost, fmt.Sprintf("the daemon on node %s was last heard of %s ago; see the node, and the pod of estiba-node on it", v.Node, silent.Round(time.Second))}
	}

	d := failed(f)
	if j.Cancel {
		d.Phase = v1alpha1.PhaseCanceled
	}

	return &d
}

// collect removes a finished job some time after its end, unless its owner, or a pod's gate, may still ask for it.
func collect(j Subject, v Supervision, now time.Time, b Bounds) Decision {
	d := stay(j.Status)
	ended := j.Created

	if t := j.Status.CompletionTimestamp; t != nil {
		ended = t.Time
	}

	if left := b.Retention - now.Sub(ended); left > 0 {
		d.RequeueAfter = left
		return d
	}

	// A pod that gets its node days later is to find that its data is there.
	if v.Awaited || v.Owner == OwnerUnknown || v.Owner == OwnerMakingObjects || v.Owner == OwnerWaiting {
		d.RequeueAfter = collectAgain
		return d
	}

	d.Action = ActionRemove

	return d
}

// collectAgain is how often a job is looked at that outlives the retention.
const collectAgain = 10 * time.Minute

// Apply writes the decision into the status, with the times and the condition
// that go with it, and reports whether that changed anything.
func Apply(s *v1alpha1.JobStatus, d Decision, now time.Time) bool {
	if s.Phase.Terminal() {
		return false
	}

	d = d.Bounded()
	at := metav1.NewTime(now)
	changed := s.Phase != d.Phase || s.Reason != d.Reason || s.Message != d.Message
	s.Phase, s.Reason, s.Message = d.Phase, d.Reason, d.Message

	if d.Interruption {
		s.Interruptions++

		changed = true
	}

	if d.Phase != v1alpha1.PhaseNew && s.AcceptedTimestamp == nil {
		s.AcceptedTimestamp, changed = &at, true
	}

	if d.Phase == v1alpha1.PhaseInProgress && s.StartTimestamp == nil {
		s.StartTimestamp, changed = &at, true
	}

	if d.Phase.Terminal() && s.CompletionTimestamp == nil {
		s.CompletionTimestamp, changed = &at, true
	}

	return setReady(s, d, at) || changed
}

// setReady keeps the condition Ready. Unlike elsewhere its transition time also moves when only the reason
// does: it is the memory of since when the job waits for something.
func setReady(s *v1alpha1.JobStatus, d Decision, at metav1.Time) bool {
	c := metav1.Condition{Type: ConditionReady, Status: metav1.ConditionFalse, Reason: d.Reason, Message: d.Message, LastTransitionTime: at}
	if d.Phase == v1alpha1.PhaseInProgress && d.Reason == ReasonRunning || d.Phase == v1alpha1.PhaseCompleted {
		c.Status = metav1.ConditionTrue
	}

	if c.Reason == "" {
		return false
	}

	old := meta.FindStatusCondition(s.Conditions, ConditionReady)

	switch {
	case old == nil:
		s.Conditions = append(s.Conditions, c)
	case old.Reason != c.Reason || old.Status != c.Status:
		*old = c
	case old.Message != c.Message:
		old.Message = c.Message
	default:
		return false
	}

	return true
}

func podReference(p TargetPod) v1alpha1.PodReference {
	return v1alpha1.PodReference{Name: p.Name, UID: types.UID(p.UID)}
}
