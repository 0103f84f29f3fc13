package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// StagedView is what the controller sees of a job that a node does through its staging pod.
type StagedView struct {
	// Through is that pod, as the job names it.
	Through v1alpha1.PodReference
	// Claim that it mounts.
	Claim Claim
	// Pods that mount the claim.
	Pods []TargetPod
	// Restore says that the job writes: it makes way for gated pods only, and one without a gate ends it, as always.
	Restore bool
}

// Yields reports whether a job that has been given to the node of its staging pod is to be taken back: because a pod
// came for which that must make way, or because others took the staging pod away.
func Yields(job string, status v1alpha1.JobStatus, v StagedView) *Finding {
	if status.Phase.Terminal() || status.Phase == v1alpha1.PhaseCanceling {
		return nil
	}

	stage, real, _ := split(job, v.Pods)

	var wants *TargetPod
	if !v.Restore {
		wants = Wanting(v.Claim, job, v.Pods)
	} else if i := slices.IndexFunc(real, func(p TargetPod) bool { return p.Gate != GateNone && !heldBack(p) && !p.Deleting }); i >= 0 {
		wants = &real[i]
	}

	switch {
	case wants != nil:
		return &Finding{ReasonClaimWanted, fmt.Sprintf("pod %s wants the claim; the staging pod makes way for it, and the work goes on through it", wants.Name)}
	case stage == nil, stage.UID != string(v.Through.UID), stage.Deleting, stage.Finished:
		f := StageLost(v.Through.Name)

		return &f
	default:
		return nil
	}
}

// StageLost is the finding about a staging pod that is gone or going and that a job still needs.
func StageLost(pod string) Finding {
	return Finding{ReasonStagingLost, fmt.Sprintf(
		"staging pod %s was evicted or deleted before the volume was moved; another one is made, and the work goes on through it", pod)}
}

// PodLost is the finding about a pod that is gone or going while a claim is read through it. Why says how it went.
func PodLost(why Finding) Finding {
	return Finding{ReasonPodLost, why.Message + "; the claim is read through its successor, or through a staging pod"}
}

// Lost reports whether the reason is that a job lost its way to its claim through no fault of its own.
func Lost(reason string) bool { return reason == ReasonStagingLost || reason == ReasonPodLost }

// Movable reports whether a backup can go on through another pod when the one is gone through which it reads: it is
// that of a claim, and not of an application that hooks have frozen in that very pod.
func Movable(job *v1alpha1.VolumeBackup) bool {
	v := job.Spec.Volume

	return v.Kind == v1alpha1.VolumePersistentVolumeClaim && v.Claim != nil && !job.Spec.Options.Frozen
}

// Yielding is the decision about a job that is taken back from the node of its pod.
func Yielding(s v1alpha1.JobStatus, f Finding, now time.Time, b Bounds) Decision {
	if began := s.StartTimestamp; began != nil && now.Sub(began.Time) >= b.Interruptions {
		f.Message += fmt.Sprintf("; gave up, for the job had begun %s before", now.Sub(began.Time).Round(time.Second))

		return failed(f)
	}

	return Decision{Phase: forward(s), Reason: f.Reason, Message: f.Message, Action: ActionUnstage, RequeueAfter: b.Soon}
}

// Interrupted returns how many attempts of a job count that is taken from its node: the one that runs doesn't, for it
// has not failed.
func Interrupted(s v1alpha1.JobStatus) int32 {
	if s.Reason == ReasonRunning && s.Attempts > 0 {
		return s.Attempts - 1
	}

	return s.Attempts
}
