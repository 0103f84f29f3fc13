package state

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// Owner is the state of the Velero Backup or Restore that a job runs for.
type Owner int

// The states of an owner.
const (
	// OwnerUnknown: it could not be looked at.
	OwnerUnknown Owner = iota
	// OwnerMakingObjects: it still writes or creates objects.
	OwnerMakingObjects
	// OwnerWaiting: it has made all its objects, and waits for operations.
	OwnerWaiting
	// OwnerDone: it has ended with something in it that can be restored; it waits for nothing any more.
	OwnerDone
	// OwnerCompleted: it is a Backup that has ended, and says that all it was to hold is in it.
	OwnerCompleted
	// OwnerClosed: it had ended before the job was made.
	OwnerClosed
	// OwnerDeleting: it is being deleted, and what it holds with it.
	OwnerDeleting
	// OwnerFailed: it has failed as a whole.
	OwnerFailed
	// OwnerGone: there is none of that name and UID.
	OwnerGone
)

// GatePosition is where a pod stands with respect to its gate.
type GatePosition int

// The positions.
const (
	// GateNone: the pod has no gate for the job.
	GateNone GatePosition = iota
	// GateHeld: the pod has none either, but is held back from being scheduled, by a scheduling gate of ours that
	// nobody but a person takes away.
	GateHeld
	// GateAhead: the gate's container does not run yet.
	GateAhead
	// GateThere: the gate's container runs.
	GateThere
	// GateBehind: the gate's container has ended well, and the pod goes on.
	GateBehind
)

// TargetPod is a pod that mounts the volume that a restore is to fill.
type TargetPod struct {
	Name string
	UID  string
	// Node is empty while the pod is not scheduled.
	Node string
	// Created is when the pod was made.
	Created time.Time
	// Scheduled is when it got its node; zero while it has none.
	Scheduled time.Time
	// Deleting says that it is being deleted.
	Deleting bool
	// Finished says that its containers have ended for good.
	Finished bool
	// Disrupted says that the cluster ended it, to drain its node or to make room there.
	Disrupted bool
	// Running says that its containers have been started.
	Running bool
	// Maker is the kind and the name of what made it, such as "Job import"; empty for a pod that somebody made by hand.
	Maker string
	// StagedFor is the name of the job whose staging pod it is; empty for all others.
	StagedFor string
	// Gate is where it stands. A staging pod writes nothing: it stands at its gate as soon as it runs.
	Gate GatePosition
	// Detail is what Kubernetes says about it not going on, if anything.
	Detail Finding
}

// Heartbeat is the last sign of life of a node's daemon; zero if there was never one.
type Heartbeat struct {
	Renewed time.Time
}

// RestoreView is what the controller sees of a VolumeRestore that is not routed yet.
type RestoreView struct {
	Owner Owner
	// Claim behind the volume, if there is one.
	Claim Claim
	// Filling is another VolumeRestore that the claim's label names and that has not ended; empty if there is none.
	Filling string
	// Pods that mount the volume.
	Pods []TargetPod
	// Heartbeats by node, of the nodes of the pods.
	Heartbeats map[string]Heartbeat
	// Nodes is how many nodes have had a daemon.
	Nodes int
}

// RouteRestore says what the controller does next about a VolumeRestore that no
// node has been chosen for.
func RouteRestore(job *v1alpha1.VolumeRestore, v RestoreView, now time.Time, b Bounds) Decision {
	return advanced(job.Status.JobStatus, routeRestore(job, v, now, b))
}

func routeRestore(job *v1alpha1.VolumeRestore, v RestoreView, now time.Time, b Bounds) Decision {
	switch {
	case job.Status.Phase.Terminal():
		return stay(job.Status.JobStatus)
	case job.Spec.Cancel:
		c := canceled(job, job.Status.JobStatus, againRestore)

		return Decision{Phase: v1alpha1.PhaseCanceled, Reason: c.Reason, Message: c.Message, Action: ActionNone}
	}

	if f := ownerEnded(v.Owner); f != nil {
		return Decision{Phase: v1alpha1.PhaseCanceled, Reason: f.Reason, Message: f.Message, Action: ActionNone}
	}

	if d := heldByRestore(job, v, b); d != nil {
		return *d
	}

	if d := restoreStaged(job, v, now, b); d != nil {
		return *d
	}

	pods := slices.DeleteFunc(mounting(job, v.Pods), func(p TargetPod) bool { return p.StagedFor != "" })
	if len(pods) == 0 {
		return routeWithoutPods(job, v, now, b)
	}

	if d := ungated(pods, b.Recheck); d != nil {
		return *d
	}

	if d := heldByReader(job, v.Pods, b); d != nil {
		return *d
	}

	if v.Claim.Fault != nil && !slices.ContainsFunc(pods, func(p TargetPod) bool { return p.Node != "" }) {
		return unprovisioned(job.Status.JobStatus, *v.Claim.Fault, now, b)
	}

	return routeThrough(slices.DeleteFunc(pods, heldBack), v.Heartbeats, now, b)
}

// routeThrough assigns the job to the node of the first pod that stands at its gate. The others have gates, too, so that
// they write nothing until the volume is restored: a pod that gets no node, or comes late, is not waited for.
func routeThrough(pods []TargetPod, beats map[string]Heartbeat, now time.Time, b Bounds) Decision {
	var waiting, ended *Decision

	for _, p := range pods {
		switch d := routePod(p, beats[p.Node], now, b); {
		case d == nil:
			return Decision{
				Phase: v1alpha1.PhaseAccepted, Reason: ReasonRouted, Action: ActionRoute,
				Message: fmt.Sprintf("pod %s stands at its gate, and all pods that mount the volume have one; node %s restores it", p.Name, p.Node),
				Route:   &Route{Node: p.Node, Pod: podReference(p)},
			}
		case d.Phase.Terminal() && ended == nil:
			ended = d
		case !d.Phase.Terminal() && (waiting == nil || p.Node != "" && waiting.Reason == ReasonPodUnscheduled):
			waiting = d
		}
	}

	if waiting != nil {
		return *waiting
	}

	return *ended
}

// unprovisioned waits for a volume for the claim, and says what Kubernetes says of that: a pod's own word is only that it has no node.
func unprovisioned(s v1alpha1.JobStatus, f ClaimFault, now time.Time, b Bounds) Decision {
	bound := b.Unscheduled
	if f.Final {
		bound = b.MissingPod
	}

	if since, known := WaitingSince(s, ReasonClaimPending); known && now.Sub(since) >= bound {
		return failed(Finding{ReasonClaimPending, fmt.Sprintf("%s; gave up after %s", f.Message, bound)})
	}

	return Decision{Phase: forward(s), Reason: ReasonClaimPending, Message: f.Message, Action: ActionNone, RequeueAfter: b.Recheck}
}

// mounting returns the pods that count, in the order of their names: those of a
// claim that have ended for good mount nothing any more.
func mounting(job *v1alpha1.VolumeRestore, pods []TargetPod) []TargetPod {
	out := make([]TargetPod, 0, len(pods))

	for _, p := range pods {
		if p.Finished && job.Spec.Target.Kind == v1alpha1.VolumePersistentVolumeClaim {
			continue
		}

		out = append(out, p)
	}

	slices.SortFunc(out, func(a, b TargetPod) int { return strings.Compare(a.Name, b.Name) })

	return out
}

func routeWithoutPods(job *v1alpha1.VolumeRestore, v RestoreView, now time.Time, b Bounds) Decision {
	target := fmt.Sprintf("pod %s/%s", job.Spec.Target.Namespace, job.Spec.Target.Pod.Name)
	if c := job.Spec.Target.Claim; c != nil {
		target = fmt.Sprintf("a pod that mounts claim %s/%s", job.Spec.Target.Namespace, c.Name)
	}

	d := Decision{
		Phase: phaseOf(job.Status.JobStatus), Reason: ReasonWaitingForPods, Action: ActionNone, RequeueAfter: b.Recheck,
		Message: fmt.Sprintf("waits for %s to be created", target),
	}

	if v.Owner == OwnerMakingObjects || v.Owner == OwnerUnknown {
		return d
	}

	d.Reason = ReasonPodNotFound
	d.Message = fmt.Sprintf("%s does not exist although the Restore has made all its objects; it was perhaps refused at admission, was there before, or is not part of the Restore: see the Restore's log", target)

	if since, ok := WaitingSince(job.Status.JobStatus, ReasonPodNotFound); ok && now.Sub(since) >= b.MissingPod {
		return failed(Finding{d.Reason, d.Message})
	}

	return d
}

// heldBack reports whether the pod is held back: it can't write, and nothing can be restored through it either.
func heldBack(p TargetPod) bool { return p.Gate == GateHeld }

// ungated finds a pod that may write to the volume, or has begun to. Pods that are held back keep no other one from its
// data; where there is no other one, nobody waits for the data.
func ungated(pods []TargetPod, recheck time.Duration) *Decision {
	allHeld := !slices.ContainsFunc(pods, func(p TargetPod) bool { return !heldBack(p) })

	for _, p := range pods {
		none := p.Gate == GateNone || allHeld

		switch {
		case none && p.Deleting:
			return &Decision{
				Phase: v1alpha1.PhaseAccepted, Reason: ReasonWaitingForPodEnd, Action: ActionNone, RequeueAfter: recheck,
				Message: fmt.Sprintf("waits until pod %s, which mounts the volume and is being deleted, is gone", p.Name),
			}
		case none:
			d := failed(Ungated(p))
			return &d
		case p.Gate == GateBehind:
			d := failed(Finding{ReasonGatePassed, fmt.Sprintf(
				"pod %s has left its gate %s before the volume was restored; delete the pod and restore it again", p.Name, gateName)})

			return &d
		}
	}

	return nil
}

const gateName = "estiba-restore-wait"

// Ungated is the finding about a pod that mounts a volume and waits at no gate of the restore.
func Ungated(p TargetPod) Finding {
	return Finding{ReasonUngatedPod, fmt.Sprintf(
		"pod %s mounts the volume and has no gate %s of this restore, so that nothing was written; %s", p.Name, gateName, stopAll(p))}
}

// stopAll is what helps against a pod without a gate. To scale its workload to zero doesn't: the restored pods would be
// taken for too many, and those that wait at the gates of a restore that has failed wait for no other one.
func stopAll(p TargetPod) string {
	maker := p.Maker
	if maker == "" {
		maker = "pod " + p.Name
	}

	also := ""
	if strings.HasPrefix(maker, "Job ") {
		also = " and the CronJob that makes it, if any"
	}

	return fmt.Sprintf("delete %s%s, and the other workloads whose pods mount the volume, and restore again", maker, also)
}

// routePod returns the decision that a pod on its way to the gate asks for; nil if it is there.
func routePod(p TargetPod, h Heartbeat, now time.Time, b Bounds) *Decision {
	wait := func(reason, what string, since time.Time, bound time.Duration) *Decision {
		if p.Detail.Reason != "" && reason == ReasonGateNotReached {
			reason = p.Detail.Reason
		}

		if p.Detail.Message != "" {
			what += ": " + p.Detail.Message
		}

		if now.Sub(since) >= bound {
			d := failed(Finding{reason, fmt.Sprintf("%s; gave up after %s", what, bound)})
			return &d
		}

		return &Decision{Phase: v1alpha1.PhaseAccepted, Reason: reason, Message: what, Action: ActionNone, RequeueAfter: b.Recheck}
	}

	switch {
	case p.Deleting:
		d := failed(Finding{ReasonPodDeleted, fmt.Sprintf("pod %s is being deleted before its volume was restored", p.Name)})
		return &d
	case p.Finished:
		d := failed(Finding{ReasonPodRejected, fmt.Sprintf("pod %s ended before its volume was restored: %s", p.Name, p.Detail.Message)})
		return &d
	case p.Node == "":
		return wait(ReasonPodUnscheduled, fmt.Sprintf("waits for pod %s to be scheduled", p.Name), p.Created, b.Unscheduled)
	case p.Gate != GateThere:
		return wait(ReasonGateNotReached, fmt.Sprintf("waits for pod %s on node %s to reach its gate", p.Name, p.Node), p.scheduled(), b.Gate)
	case h.Renewed.IsZero(), now.Sub(h.Renewed) >= b.NodeLost:
		// A job that is given to a daemon that is silent fails at once; this one may be about to start.
		return wait(ReasonNoDaemonOnNode, noDaemon(p.Node), p.scheduled(), b.Gate)
	default:
		return nil
	}
}

func (p TargetPod) scheduled() time.Time {
	if p.Scheduled.IsZero() {
		return p.Created
	}

	return p.Scheduled
}

func noDaemon(node string) string {
	return fmt.Sprintf("no daemon of Estiba has reported from node %s; see that the DaemonSet estiba-node tolerates its taints and that its pod there is ready", node)
}

// Recheck looks once more, right before data is written, whether every pod that
// mounts the volume has a gate that it has not left, and whether the chosen pod stands
// at its own on this node. It gives what is wrong for good, or what is missing yet.
func Recheck(job *v1alpha1.VolumeRestore, pods []TargetPod, node string) (permanent, waiting *Finding) {
	reader := heldByReader(job, pods, Bounds{})
	pods = slices.DeleteFunc(mounting(job, pods), func(p TargetPod) bool { return p.StagedFor != "" && p.StagedFor != job.Name })
	chosen := job.Status.Pod

	if chosen == nil {
		return nil, &Finding{ReasonNotRouted, "the controller has not chosen a pod yet (status.pod)"}
	}

	if d := ungated(pods, 0); d != nil {
		f := &Finding{d.Reason, d.Message}
		if d.Phase.Terminal() {
			return f, nil
		}

		return nil, f
	}

	if reader != nil {
		return nil, &Finding{reader.Reason, reader.Message}
	}

	i := slices.IndexFunc(pods, func(p TargetPod) bool { return p.UID == string(chosen.UID) })

	switch {
	case i < 0:
		return &Finding{ReasonPodNotFound, fmt.Sprintf("pod %s (UID %s), through which the volume was to be restored, is gone; restore it again", chosen.Name, chosen.UID)}, nil
	case pods[i].Node != node:
		return &Finding{ReasonPodMoved, fmt.Sprintf("pod %s is on node %q, and the job was given to node %q (label estiba.dev/node)", chosen.Name, pods[i].Node, node)}, nil
	}

	switch p := pods[i]; {
	case p.Deleting:
		return &Finding{ReasonPodDeleted, fmt.Sprintf("pod %s is being deleted before its volume was restored", p.Name)}, nil
	case p.Gate != GateThere:
		return nil, &Finding{ReasonGateNotReached, fmt.Sprintf("waits for pod %s to reach its gate", p.Name)}
	default:
		return nil, nil
	}
}

// Spoiled looks, while a restore writes and once more when it has, whether a pod
// that was not there before may write to the volume, too.
func Spoiled(job *v1alpha1.VolumeRestore, pods []TargetPod) *Finding {
	for _, p := range pods {
		namesake := job.Spec.Target.Kind != v1alpha1.VolumePersistentVolumeClaim && (job.Status.Pod == nil || p.UID != string(job.Status.Pod.UID))
		if namesake || p.Finished && !appeared(job, p) {
			continue
		}

		switch p.Gate {
		case GateNone:
			return &Finding{ReasonUngatedPod, fmt.Sprintf(
				"pod %s mounts the volume and has no gate %s of this restore; it was made while the volume was restored, and may have read or changed half of it: %s", p.Name, gateName, stopAll(p))}
		case GateBehind:
			return &Finding{ReasonGatePassed, fmt.Sprintf(
				"pod %s has left its gate %s while the volume was restored; delete the pod and restore it again", p.Name, gateName)}
		default:
		}
	}

	return nil
}

// appeared reports whether the pod was made after the worker began.
func appeared(job *v1alpha1.VolumeRestore, p TargetPod) bool {
	start := job.Status.StartTimestamp

	return start != nil && p.Created.After(start.Time)
}

// ownerEnded returns the finding if the owner waits for the job no more.
func ownerEnded(o Owner) *Finding {
	switch o {
	case OwnerGone:
		return &Finding{ReasonOwnerGone, "the Backup or Restore that asked for the job is gone"}
	case OwnerFailed:
		return &Finding{ReasonOwnerFailed, "the Backup or Restore that asked for the job has failed, perhaps because Velero was restarted"}
	case OwnerClosed:
		return &Finding{ReasonOwnerNotRunning, "the Backup that the job names had ended before the job was made, and takes no volumes in"}
	case OwnerDeleting:
		return &Finding{ReasonOwnerNotRunning, "the Backup that asked for the job is being deleted, and its snapshots with it"}
	default:
		return nil
	}
}
