package state

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// Claim is what the controller sees of the PersistentVolumeClaim behind a job.
type Claim struct {
	Found bool
	UID   string
	// Bound and Lost are its phase; neither means that it is pending.
	Bound, Lost bool
	// Block says that it is a raw block device.
	Block bool
	// Unfilled is the VolumeRestore whose data it lacks, by its label; empty for a claim that is whole.
	Unfilled string
	// Created is when it was made.
	Created time.Time
	// Shared says that pods on several nodes may mount it at a time; OnePod that no two pods may.
	Shared, OnePod bool
	// Fault is why it gets no volume; nil while nothing is known.
	Fault *ClaimFault
	// Loose is the PersistentVolume behind it if that is a hostPath without a node affinity, which is another folder
	// on each node; empty for all others, and while pods mount the claim.
	Loose string
}

// ClaimFault is why a claim gets no volume.
type ClaimFault struct {
	// Message names the claim and says what Kubernetes says of it.
	Message string
	// Final says that it doesn't get one unless somebody does something.
	Final bool
}

// ClaimView is what the controller sees of a backup of a claim that names no pod.
type ClaimView struct {
	Owner Owner
	Claim Claim
	// Unfilled is why the claim doesn't hold what a restore was to bring; empty where it does.
	Unfilled string
	// Pods that mount the claim, staging pods among them.
	Pods []TargetPod
	// Heartbeats by node, of the nodes of the pods.
	Heartbeats map[string]Heartbeat
}

// split takes the job's own staging pod from the pods that mount its claim, and
// those of other jobs from the rest, in the order of their names. Others that
// have ended for good mount nothing any more.
func split(job string, pods []TargetPod) (stage *TargetPod, real, others []TargetPod) {
	for _, p := range pods {
		switch {
		case p.StagedFor == job:
			stage = &p
		case p.Finished:
		case p.StagedFor != "":
			others = append(others, p)
		default:
			real = append(real, p)
		}
	}

	byName := func(a, b TargetPod) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(real, byName)
	slices.SortFunc(others, byName)

	return stage, real, others
}

// RouteClaim says what the controller does next about a backup of a claim that
// names no pod and that no node has been chosen for: it goes through a running
// pod if there is one by now, and through a staging pod else.
func RouteClaim(job *v1alpha1.VolumeBackup, v ClaimView, now time.Time, b Bounds) Decision {
	if d := routeEnded(job, v, now, b); d != nil {
		return *d
	}

	stage, real, others := split(job.Name, v.Pods)
	name := claimName(job.Spec.Volume)

	if stage == nil {
		if p := running(real); p != nil {
			return routed(job.Status.JobStatus, *p, fmt.Sprintf("pod %s mounts %s by now, and the volume is read through it on node %s", p.Name, name, p.Node))
		}
	}

	if p := Wanting(v.Claim, job.Name, v.Pods); p != nil {
		return makeWay(job.Status.JobStatus, stage, *p, name, now, b)
	}

	if stage != nil {
		return advanced(job.Status.JobStatus, routeStage(job.Status.JobStatus, staged{*stage, real, others, v.Claim, v.Heartbeats[stage.Node], name}, now, b))
	}

	return advanced(job.Status.JobStatus, makeStage(job.Status.JobStatus, staged{others: others, claim: v.Claim, name: name}, now, b))
}

func routeEnded(job *v1alpha1.VolumeBackup, v ClaimView, now time.Time, b Bounds) *Decision {
	var d Decision

	deadline, _ := backupDeadline(job, now, b)

	switch f := claimFault(job.Spec.Volume, v.Claim); {
	case job.Status.Phase.Terminal():
		d = stay(job.Status.JobStatus)
	case job.Spec.Cancel:
		c := canceled(job, job.Status.JobStatus, againBackup)
		d = Decision{Phase: v1alpha1.PhaseCanceled, Reason: c.Reason, Message: c.Message, Action: ActionNone}
	case ownerEnded(v.Owner) != nil:
		o := ownerEnded(v.Owner)
		d = Decision{Phase: v1alpha1.PhaseCanceled, Reason: o.Reason, Message: o.Message, Action: ActionNone}
	case deadline != nil:
		d = failed(*deadline)
	case f == nil && v.Unfilled != "":
		d = failed(RestoreNotDone(job.Spec.Volume, v.Unfilled))
	case f == nil && !v.Claim.Bound:
		d = failed(Finding{ReasonClaimPending, fmt.Sprintf("%s is pending and bound to no volume: there is nothing to back up", claimName(job.Spec.Volume))})
	case f != nil:
		d = failed(*f)
	default:
		return nil
	}

	return &d
}

// claimFault returns why the claim can't be mounted at all, or nil.
func claimFault(ref v1alpha1.VolumeReference, c Claim) *Finding {
	name := claimName(ref)

	switch {
	case !c.Found:
		return &Finding{ReasonClaimNotFound, name + " does not exist (any more)"}
	case ref.Claim.UID != "" && string(ref.Claim.UID) != c.UID:
		return &Finding{ReasonVolumeMismatch, fmt.Sprintf("%s has UID %s (metadata.uid), and the job names %s: it was replaced; back it up again", name, c.UID, ref.Claim.UID)}
	case c.Lost:
		return &Finding{ReasonClaimLost, name + " has lost its volume (status.phase is Lost): its PersistentVolume is gone; make the claim anew"}
	case c.Block:
		return &Finding{ReasonVolumeUnsupported, name + " is a raw block device (spec.volumeMode), which holds no files; use snapshots for it"}
	default:
		return nil
	}
}

func claimName(ref v1alpha1.VolumeReference) string {
	if ref.Claim == nil {
		return "the claim"
	}

	return fmt.Sprintf("PersistentVolumeClaim %s/%s", ref.Namespace, ref.Claim.Name)
}

// running returns the first pod that runs and stays.
func running(pods []TargetPod) *TargetPod {
	for _, p := range pods {
		if p.Running && p.Node != "" && !p.Deleting {
			return &p
		}
	}

	return nil
}

// Wanting returns a pod that wants the claim and that a staging pod stands, or
// would stand, in the way of; nil if there is none.
func Wanting(c Claim, job string, pods []TargetPod) *TargetPod {
	if c.Shared {
		return nil
	}

	stage, real, _ := split(job, pods)

	for _, p := range real {
		beside := stage != nil && p.Node != "" && p.Node == stage.Node && p.Running && !c.OnePod

		if !p.Deleting && !beside {
			return &p
		}
	}

	return nil
}

// makeWay lets go of the claim for a pod that wants it, and waits until that one runs.
func makeWay(s v1alpha1.JobStatus, stage *TargetPod, p TargetPod, name string, now time.Time, b Bounds) Decision {
	d := Decision{
		Phase: forward(s), Reason: ReasonClaimWanted, Action: ActionNone, RequeueAfter: b.Poll,
		Message: fmt.Sprintf("pod %s wants %s; the volume is read through it when it runs", p.Name, name),
	}

	if stage != nil {
		d.Action = ActionUnstage
		return d
	}

	since, known := WaitingSince(s, ReasonClaimWanted)

	switch {
	case !known || now.Sub(since) < b.Staging:
		return d
	case p.Node != "":
		// Its volumes may be mounted though its containers don't run: images are pulled after that.
		return routed(s, p, fmt.Sprintf("pod %s has %s and doesn't run; the volume is read through it on node %s", p.Name, name, p.Node))
	default:
		return failed(Finding{ReasonClaimWanted, fmt.Sprintf(
			"pod %s wants %s and was not running %s later, so that the volume could be read neither through it nor through a staging pod%s; see kubectl describe pod, or remove the pod and back up again",
			p.Name, name, b.Staging, because(p))})
	}
}

func because(p TargetPod) string {
	if p.Detail.Message == "" {
		return ""
	}

	return " (" + p.Detail.Message + ")"
}

// makeStage has a staging pod made, unless another job's is in its place.
func makeStage(s v1alpha1.JobStatus, v staged, now time.Time, b Bounds) Decision {
	if !v.claim.Shared && len(v.others) > 0 {
		return heldBy(v.others[0], v.name, b)
	}

	if since, lost := WaitingSince(s, ReasonStagingLost); lost && now.Sub(since) < b.Recheck {
		// Whoever took the last one away may do so again and again.
		d := stay(s)
		d.RequeueAfter = b.Recheck - now.Sub(since)

		return d
	}

	return Decision{
		Phase: v1alpha1.PhaseAccepted, Reason: ReasonStaging, Action: ActionStage, RequeueAfter: b.Soon,
		Message: fmt.Sprintf("no running pod mounts %s; a staging pod is made for it", v.name),
	}
}

// heldBy waits for the staging pod of another job, which has bounds of its own.
func heldBy(other TargetPod, name string, b Bounds) Decision {
	return Decision{
		Phase: v1alpha1.PhaseAccepted, Reason: ReasonClaimHeld, Action: ActionNone, RequeueAfter: b.Poll,
		Message: fmt.Sprintf("staging pod %s of job %s mounts %s; waits until it is gone", other.Name, other.StagedFor, name),
	}
}

// staged is a staging pod on its way.
type staged struct {
	pod TargetPod
	// real pods and staging pods of other jobs that mount the claim.
	real, others []TargetPod
	claim        Claim
	beat         Heartbeat
	name         string
}

// stagingPatience is the part of the time that a staging pod has taken already after which it is looked at again.
const stagingPatience = 4

// routeStage returns the job to the staging pod's node once that pod runs.
func routeStage(s v1alpha1.JobStatus, v staged, now time.Time, b Bounds) Decision {
	p := v.pod
	wait := func(reason, what string) Decision { return waitForStage(s, p, Finding{reason, what}, now, b) }

	if d := v.removed(b); d != nil && !p.Deleting {
		return *d
	}

	switch holder := v.holder(); {
	case p.Deleting:
		return wait(ReasonWaitingForPodEnd, fmt.Sprintf("waits until staging pod %s, which is being deleted, is gone", p.Name))
	case !p.Running && holder != nil:
		return wait(ReasonClaimHeld, fmt.Sprintf("pod %s on node %s holds %s, which staging pod %s waits for", holder.Name, holder.Node, v.name, p.Name))
	case p.Node == "" && v.claim.Fault != nil:
		return unprovisioned(s, *v.claim.Fault, now, b)
	case p.Node == "":
		return wait(ReasonStagingUnscheduled, fmt.Sprintf("staging pod %s for %s has no node", p.Name, v.name))
	case !p.Running && p.Detail.Reason == ReasonStagingImagePull:
		return wait(ReasonStagingImagePull, fmt.Sprintf("the image of staging pod %s can't be pulled on node %s; its namespace may need imagePullSecrets", p.Name, p.Node))
	case !p.Running:
		return wait(ReasonStagingNotStarted, fmt.Sprintf(
			"staging pod %s doesn't run on node %s yet; if it stays so, the volume can't be attached or mounted there: see kubectl describe pod", p.Name, p.Node))
	case v.beat.Renewed.IsZero(), now.Sub(v.beat.Renewed) >= b.NodeLost:
		return wait(ReasonNoDaemonOnNode, noDaemon(p.Node))
	default:
		return routed(s, p, fmt.Sprintf("staging pod %s mounts %s; node %s moves the volume", p.Name, v.name, p.Node))
	}
}

// waitForStage waits for a staging pod, as long as one may take.
func waitForStage(s v1alpha1.JobStatus, p TargetPod, f Finding, now time.Time, b Bounds) Decision {
	if p.Detail.Message != "" {
		f.Message += ": " + p.Detail.Message
	}

	since := p.Created

	if f.Reason == ReasonWaitingForPodEnd {
		// The pod may have been of use for hours before it had to go.
		since = now
		if at, known := WaitingSince(s, f.Reason); known {
			since = at
		}
	}

	if now.Sub(since) >= b.Staging {
		return failed(Finding{f.Reason, fmt.Sprintf("%s; gave up after %s", f.Message, b.Staging)})
	}

	// Each look lists the pods of the namespace: what takes longer is looked at less often.
	again := min(max(b.Soon, now.Sub(since)/stagingPatience), b.Recheck)

	return Decision{Phase: v1alpha1.PhaseAccepted, Reason: f.Reason, Message: f.Message, Action: ActionNone, RequeueAfter: again}
}

// removed returns the decision about a staging pod that will never be of use; nil if it may be.
func (v staged) removed(b Bounds) *Decision {
	var d Decision

	switch p, rival := v.pod, v.rival(); {
	case p.Finished && p.Disrupted:
		d = Decision{
			Phase: v1alpha1.PhaseAccepted, Reason: ReasonStagingLost, Action: ActionUnstage, RequeueAfter: b.Soon,
			Message: fmt.Sprintf("staging pod %s was evicted%s; another one is made", p.Name, because(p)),
		}
	case p.Finished:
		d = failed(Finding{ReasonStagingEnded, fmt.Sprintf("staging pod %s ended before the volume was moved%s; try again", p.Name, because(p))})
	case !p.Running && rival != nil:
		d = heldBy(*rival, v.name, b)
		d.Action = ActionUnstage
	default:
		return nil
	}

	return &d
}

// rival returns the staging pod of another job that the claim is left to: one that has it, or, of two that were made
// at the same time, the first. On two nodes neither might ever run.
func (v staged) rival() *TargetPod {
	for _, p := range v.others {
		first := p.Running || p.Created.Before(v.pod.Created) || p.Created.Equal(v.pod.Created) && p.Name < v.pod.Name
		if first && !p.Deleting && !v.claim.Shared {
			return &p
		}
	}

	return nil
}

// holder returns a pod that keeps the staging pod from getting the claim.
func (v staged) holder() *TargetPod {
	for _, p := range v.real {
		elsewhere := p.Node != "" && (v.claim.OnePod || p.Node != v.pod.Node)
		if elsewhere && !v.claim.Shared {
			return &p
		}
	}

	return nil
}

func routed(s v1alpha1.JobStatus, p TargetPod, message string) Decision {
	return Decision{
		Phase: forward(s), Reason: ReasonRouted, Message: message, Action: ActionRoute,
		Route: &Route{Node: p.Node, Pod: podReference(p)},
	}
}

// advanced keeps a job that had begun before it was taken from its node in progress.
func advanced(s v1alpha1.JobStatus, d Decision) Decision {
	if s.Phase == v1alpha1.PhaseInProgress && !d.Phase.Terminal() {
		d.Phase = s.Phase
	}

	return d
}

// StagingRefused says what becomes of a job whose staging pod the API server
// has refused. What may change by itself, such as a quota that is used up, is
// tried again for as long as a staging pod may take.
func StagingRefused(s v1alpha1.JobStatus, cause string, again bool, now time.Time, b Bounds) Decision {
	what := "the staging pod is refused: " + cause

	since, known := WaitingSince(s, ReasonStagingRefused)
	if !again || known && now.Sub(since) >= b.Staging {
		return failed(Finding{ReasonStagingRefused, what + "; admit it in that namespace (it conforms to the restricted Pod Security Standard), or run a pod that mounts the claim"})
	}

	return Decision{Phase: forward(s), Reason: ReasonStagingRefused, Message: what + "; tried again", Action: ActionNone, RequeueAfter: b.Recheck}
}

// StagingCrowded is the decision about a job that waits until others let go of their
// staging pods. Each of those has bounds of its own.
func StagingCrowded(s v1alpha1.JobStatus, there int, b Bounds) Decision {
	return Decision{
		Phase: forward(s), Reason: ReasonStagingCrowded, Action: ActionNone, RequeueAfter: b.Recheck,
		Message: fmt.Sprintf("%d staging pods are there for other jobs, as many as may be (--staging-pods of the controller); waits until one is gone", there),
	}
}

// StagingNameTaken is the decision about a job whose staging pod's name another pod has.
func StagingNameTaken(name string) Decision {
	return failed(Finding{ReasonStagingNameTaken, fmt.Sprintf("pod %s is there and is not the job's staging pod; delete it and try again", name)})
}

// restoreStaged says what the controller does next about the restore of a claim
// that has a staging pod, or that no pod mounts though the Restore has made all
// its objects; nil if it is none of these.
func restoreStaged(job *v1alpha1.VolumeRestore, v RestoreView, now time.Time, b Bounds) *Decision {
	stage, real, others := split(job.Name, v.Pods)
	name := claimName(job.Spec.Target)
	making := v.Owner == OwnerMakingObjects || v.Owner == OwnerUnknown

	var d Decision

	switch {
	case job.Spec.Target.Claim == nil || stage == nil && (len(real) > 0 || making):
		return nil
	case len(real) > 0:
		if u := ungated(real, b.Recheck); u != nil {
			return u
		}

		gated := slices.DeleteFunc(real, heldBack)
		d = Decision{
			Phase: v1alpha1.PhaseAccepted, Reason: ReasonClaimWanted, Action: ActionUnstage, RequeueAfter: b.Soon,
			Message: fmt.Sprintf("pod %s waits at its gate for the data of %s; the volume is restored through it", gated[0].Name, name),
		}
	case v.Claim.Loose != "" && v.Nodes > 1:
		d = failed(Finding{ReasonVolumeUnsupported, fmt.Sprintf(
			"%s has a hostPath without a node affinity (PersistentVolume %s), another folder on each node, and no pod of the Restore mounts it: on which node its data is wanted can't be told; "+
				"restore it together with a pod that mounts it, or set spec.nodeAffinity of the PersistentVolume and restore again", name, v.Claim.Loose)})
	case stage != nil && v.Claim.Shared && len(others) > 0:
		// Both could have it at a time: the one would read what the other writes.
		d = heldBy(others[0], name, b)
	case stage != nil:
		d = routeStage(job.Status.JobStatus, staged{*stage, nil, others, v.Claim, v.Heartbeats[stage.Node], name}, now, b)
	case !v.Claim.Found:
		d = missingClaim(job, now, b)
	default:
		d = stageRestore(job, v.Claim, others, now, b)
	}

	return &d
}

// stageRestore has a staging pod made for the restore of a claim, unless something about the claim is wrong.
func stageRestore(job *v1alpha1.VolumeRestore, claim Claim, others []TargetPod, now time.Time, b Bounds) Decision {
	if f := claimFault(job.Spec.Target, claim); f != nil {
		return failed(*f)
	}

	claim.Shared = false // A restore has the volume for itself.

	return makeStage(job.Status.JobStatus, staged{others: others, claim: claim, name: claimName(job.Spec.Target)}, now, b)
}

func missingClaim(job *v1alpha1.VolumeRestore, now time.Time, b Bounds) Decision {
	f := Finding{ReasonClaimNotFound, fmt.Sprintf(
		"%s does not exist although the Restore has made all its objects; it was perhaps refused at admission, or is not part of the Restore: see the Restore's log", claimName(job.Spec.Target))}

	if since, known := WaitingSince(job.Status.JobStatus, f.Reason); known && now.Sub(since) >= b.MissingPod {
		return failed(f)
	}

	return Decision{Phase: v1alpha1.PhaseAccepted, Reason: f.Reason, Message: f.Message, Action: ActionNone, RequeueAfter: b.Recheck}
}
