package state

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// GateState is what a pod's gate is to do.
type GateState string

// The states of a gate.
const (
	// GateWaiting: not all of the pod's volumes are there.
	GateWaiting GateState = "Waiting"
	// GateOpen: they are.
	GateOpen GateState = "Open"
	// GateFailed: at least one of them won't be, unless its restore is tried again.
	GateFailed GateState = "Failed"
)

// GateJob is one of the VolumeRestores that a pod's gate waits for.
type GateJob struct {
	// Volume in the pod.
	Volume string
	// Name of the VolumeRestore.
	Name string
	// Status of the VolumeRestore; nil if there is none that fits the pod.
	Status *v1alpha1.JobStatus
}

// GateDecision is what to write for a pod's gate.
type GateDecision struct {
	State  GateState
	Reason string
	// Progress is one line for people.
	Progress string
	// Message is why the gate stays closed; empty unless State is GateFailed.
	Message string
}

// NextGate says what a pod's gate is to do. Waiting is how long the pod has stood at it.
func NextGate(jobs []GateJob, waiting time.Duration, b Bounds) GateDecision {
	jobs = slices.Clone(jobs)
	slices.SortFunc(jobs, func(a, b GateJob) int { return strings.Compare(a.Volume, b.Volume) })

	var (
		lines, faults []string
		reason        string
		done          int
	)

	for _, j := range jobs {
		line, fault := gateJob(j, waiting, b)
		lines = append(lines, line)

		if fault.Reason != "" {
			reason = fault.Reason

			faults = append(faults, fault.Message)
		}

		if j.Status != nil && j.Status.Phase == v1alpha1.PhaseCompleted {
			done++
		}
	}

	d := GateDecision{State: GateWaiting, Reason: ReasonWaitingForPods, Progress: strings.Join(lines, "; ")}

	switch {
	case len(faults) > 0:
		d.State, d.Reason, d.Message = GateFailed, reason, Cut(strings.Join(faults, "; "))
	case done == len(jobs):
		d.State, d.Reason = GateOpen, ReasonCompleted
	}

	return d
}

// UnreadableGate is the decision about a pod whose record of what its gate waits for can't be read.
func UnreadableGate(err error) GateDecision {
	return GateDecision{
		State: GateFailed, Reason: ReasonJobMissing, Progress: "it can't be told which volumes are waited for",
		Message: Cut(fmt.Sprintf("it can't be told which volumes the gate waits for: %v; delete the pod and restore it again", err)),
	}
}

func gateJob(j GateJob, waiting time.Duration, b Bounds) (string, Finding) {
	if j.Status == nil {
		f := Finding{}
		if waiting >= b.MissingJob {
			f = Finding{ReasonJobMissing, fmt.Sprintf("volume %s: there is no VolumeRestore %s that fills it; restore the pod again", j.Volume, j.Name)}
		}

		return fmt.Sprintf("%s: VolumeRestore %s not found", j.Volume, j.Name), f
	}

	s := *j.Status

	switch phaseOf(s) {
	case v1alpha1.PhaseCompleted:
		return j.Volume + ": done", Finding{}
	case v1alpha1.PhaseFailed, v1alpha1.PhaseCanceled:
		return fmt.Sprintf("%s: %s (%s)", j.Volume, s.Phase, s.Reason),
			Finding{s.Reason, fmt.Sprintf("volume %s: VolumeRestore %s: %s: %s: %s", j.Volume, j.Name, s.Phase, s.Reason, s.Message)}
	case v1alpha1.PhaseInProgress:
		return fmt.Sprintf("%s: %s", j.Volume, bytesLine(s.Progress)), Finding{}
	default:
		return fmt.Sprintf("%s: %s", j.Volume, waitingLine(s)), Finding{}
	}
}

func waitingLine(s v1alpha1.JobStatus) string {
	if s.Message == "" {
		return string(phaseOf(s))
	}

	return fmt.Sprintf("%s (%s)", phaseOf(s), s.Message)
}

func bytesLine(p v1alpha1.Progress) string {
	if p.TotalBytes <= 0 {
		return fmt.Sprintf("%s restored, %d files", contract.Size(p.BytesDone), p.FilesDone)
	}

	return fmt.Sprintf("%s of %s restored (%d%%), %d of %d files",
		contract.Size(p.BytesDone), contract.Size(p.TotalBytes), p.BytesDone*100/p.TotalBytes, p.FilesDone, p.TotalFiles)
}
