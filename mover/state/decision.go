package state

import (
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// Action is what a controller has to do, besides writing the status.
type Action string

// The actions.
const (
	// ActionNone asks for nothing.
	ActionNone Action = "None"
	// ActionStart asks for a worker to be started (it may queue).
	ActionStart Action = "Start"
	// ActionCancel asks for the worker to be told to stop.
	ActionCancel Action = "Cancel"
	// ActionKill asks for the worker to be ended by force.
	ActionKill Action = "Kill"
	// ActionRoute asks for the job to be given to Decision.Route.
	ActionRoute Action = "Route"
	// ActionRequestCancel asks for spec.cancel to be set.
	ActionRequestCancel Action = "RequestCancel"
	// ActionStage asks for the job's staging pod to be made.
	ActionStage Action = "Stage"
	// ActionUnstage asks for the job to be taken from its node, and for its staging pod to be deleted.
	ActionUnstage Action = "Unstage"
	// ActionRemove asks for the job object to be deleted.
	ActionRemove Action = "Remove"
)

// Decision is what to do next about a job.
type Decision struct {
	// Phase the job is to be in.
	Phase v1alpha1.Phase
	// Reason in one word; one of the Reason constants or a worker's code.
	Reason string
	// Message for people.
	Message string
	// Action to take.
	Action Action
	// Route is where to send the job; set with ActionRoute only.
	Route *Route
	// Interruption says that the run before this decision ended with its daemon, and has not failed.
	Interruption bool
	// RequeueAfter is when to look again even if nothing happens; 0 means never.
	RequeueAfter time.Duration
}

// Route is the node and the pod through which a volume is restored.
type Route struct {
	Node string
	Pod  v1alpha1.PodReference
}

// Finding is something observed that keeps a job from going on.
type Finding struct {
	// Reason in one word.
	Reason string
	// Message names the object, the field and the remedy.
	Message string
}

// Bounds are the times and counts after which the machine gives up or acts.
type Bounds struct {
	// Unscheduled is how long a pod may wait for a node.
	Unscheduled time.Duration
	// Gate is how long a pod may take to its gate once it has a node, and a
	// volume to be mounted once its job was accepted.
	Gate time.Duration
	// Staging is how long a staging pod may take until it runs, and a pod that wants its claim until that one runs.
	Staging time.Duration
	// Interruptions is how long after its first start a job is taken up again whose staging pod had to make way, or was
	// taken away by others.
	Interruptions time.Duration
	// StagingPods is how many staging pods may be there at a time.
	StagingPods int
	// NodeLost is how old a node's heartbeat may get.
	NodeLost time.Duration
	// NoDaemon is how long a job waits on a node that no heartbeat was ever seen from.
	NoDaemon time.Duration
	// Cancel is how long a worker may take to stop.
	Cancel time.Duration
	// Freeze is how long an application may be quiesced if the job has no deadline of its own.
	Freeze time.Duration
	// MissingPod is how long the pod of a restore may be missing after Velero has made all objects.
	MissingPod time.Duration
	// MissingJob is how long a gate waits for a job that does not exist.
	MissingJob time.Duration
	// Attempts is how often a worker is started for one job, those aside that ended with their daemon.
	Attempts int32
	// Restarts is how often a job is taken up again whose worker ended with its daemon: the worker may be why the
	// daemon ends.
	Restarts int32
	// RetryDelay is the wait before the second attempt; it doubles with each.
	RetryDelay time.Duration
	// RetryDelayMax bounds the wait between two attempts.
	RetryDelayMax time.Duration
	// Poll is how often a running worker's progress is looked at.
	Poll time.Duration
	// Soon is how often something is looked at that is expected at any moment and sends no event.
	Soon time.Duration
	// Recheck is how often something is looked at that should have sent an event.
	Recheck time.Duration
	// Abandon is how long a deletion is tried whose location or repository isn't there.
	Abandon time.Duration
	// Retention is how long a job's object is kept after its end.
	Retention time.Duration
}

// DefaultBounds are the bounds used where nothing else is set.
func DefaultBounds() Bounds {
	return Bounds{
		Unscheduled:   10 * time.Minute,
		Gate:          5 * time.Minute,
		Staging:       5 * time.Minute,
		StagingPods:   16,
		Interruptions: 4 * time.Hour,
		NodeLost:      2 * time.Minute,
		NoDaemon:      time.Minute,
		Cancel:        30 * time.Second,
		Freeze:        10 * time.Minute,
		MissingPod:    2 * time.Minute,
		MissingJob:    2 * time.Minute,
		Attempts:      3,
		Restarts:      10,
		RetryDelay:    10 * time.Second,
		RetryDelayMax: time.Hour,
		Poll:          2 * time.Second,
		Soon:          500 * time.Millisecond,
		Recheck:       5 * time.Second,
		Abandon:       7 * 24 * time.Hour,
		Retention:     6 * time.Hour,
	}
}

// RetryAfter is the wait after the given number of attempts.
func (b Bounds) RetryAfter(attempts int32) time.Duration {
	d := b.RetryDelay
	for ; attempts > 1 && d < b.RetryDelayMax; attempts-- {
		d *= 2
	}

	return min(d, b.RetryDelayMax)
}

// phaseOf is the phase of a job, with the empty one named.
func phaseOf(s v1alpha1.JobStatus) v1alpha1.Phase {
	if s.Phase == "" {
		return v1alpha1.PhaseNew
	}

	return s.Phase
}

// stay is the decision that leaves a job as it is.
func stay(s v1alpha1.JobStatus) Decision {
	return Decision{Phase: phaseOf(s), Reason: s.Reason, Message: s.Message, Action: ActionNone}
}

func failed(f Finding) Decision {
	return Decision{Phase: v1alpha1.PhaseFailed, Reason: f.Reason, Message: f.Message, Action: ActionNone}
}
