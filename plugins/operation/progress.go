package operation

import (
	"fmt"
	"strings"
	"time"

	"github.com/vmware-tanzu/velero/pkg/plugin/velero"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// Units are the units of all counts.
const Units = "B"

// MissingBound is how long after the operation's start a job may be missing
// before that is final. A job is created before its operation, so this only
// covers an API server that answers from a stale cache.
const MissingBound = 2 * time.Minute

// Observed is what is known of the jobs of one operation.
type Observed struct {
	// ID of the operation.
	ID ID
	// Jobs by name; a job that could not be found is absent.
	Jobs map[string]jobs.Progress
	// Started is when the operation, or what it belongs to, was started.
	Started time.Time
	// Now is when the jobs were looked at.
	Now time.Time
}

// Progress returns what Velero is told. The operation is complete when all of its
// jobs have ended or are lost; then Err lists those that didn't do what was asked.
func Progress(o Observed) velero.OperationProgress {
	p := velero.OperationProgress{Completed: true, OperationUnits: Units, Updated: o.Now}
	lines := make([]string, 0, len(o.ID.Jobs))

	var failures []string

	for _, name := range o.ID.Jobs {
		job, found := o.Jobs[name]
		if !found {
			job = o.missing(name)
		}

		add(&p, job)

		lines = append(lines, describe(job))

		if failure := failed(o.ID.Kind, job); failure != "" {
			failures = append(failures, failure)
		}
	}

	p.Description = strings.Join(lines, "; ")
	// While some jobs run, a failed one is only part of the description: Velero
	// takes an error as the end of the operation.
	if p.Completed {
		p.Err = strings.Join(failures, "; ")
	}

	return p
}

// Warnings returns, by job, what is to be warned of once the operation is over: what its
// completed jobs left out.
func Warnings(o Observed) map[string]string {
	found := map[string]string{}

	for _, name := range o.ID.Jobs {
		if job, ok := o.Jobs[name]; ok && job.Phase == v1alpha1.PhaseCompleted && job.Omitted != "" {
			found[name] = fmt.Sprintf("volume %s: %s %s is Completed, %s", job.Volume, o.ID.Kind, name, job.Omitted)
		}
	}

	return found
}

// Started returns the latest moment that is known to lie at or before the
// operation's start: when its owner was started, or its youngest job created.
func Started(owner time.Time, id ID, found map[string]jobs.Progress) time.Time {
	for _, name := range id.Jobs {
		if job, ok := found[name]; ok && job.Created.After(owner) {
			owner = job.Created
		}
	}

	return owner
}

func (o Observed) missing(name string) jobs.Progress {
	p := jobs.Progress{Job: name, Volume: name, Phase: v1alpha1.PhaseNew, Message: "the job can't be found yet"}

	if o.Now.Sub(o.Started) > MissingBound {
		p.Phase = v1alpha1.PhaseFailed
		p.Reason = "JobMissing"
		p.Message = fmt.Sprintf("the %s %s doesn't exist any more: somebody, or the deletion of its namespace, has removed it", o.ID.Kind, name)
	}

	return p
}

func add(p *velero.OperationProgress, job jobs.Progress) {
	total := max(job.BytesTotal, job.BytesDone)
	done := job.BytesDone

	if job.Phase == v1alpha1.PhaseCompleted {
		done = total
	}

	p.NCompleted += done
	p.NTotal += total
	p.Completed = p.Completed && job.Phase.Terminal()

	// Velero shows an operation as new until it has a start.
	if !job.Started.IsZero() && (p.Started.IsZero() || job.Started.Before(p.Started)) {
		p.Started = job.Started
	}
}

func describe(job jobs.Progress) string {
	var b strings.Builder

	b.WriteString(job.Volume)

	if job.Node != "" {
		b.WriteString(" on node " + job.Node)
	}

	b.WriteString(": " + string(job.Phase))

	switch {
	case job.Phase == v1alpha1.PhaseCompleted:
		b.WriteString(", " + contract.Size(max(job.BytesDone, job.BytesTotal)))
	case job.BytesTotal > 0:
		b.WriteString(", " + contract.Size(job.BytesDone) + " of " + contract.Size(max(job.BytesDone, job.BytesTotal)))
	case job.BytesDone > 0:
		b.WriteString(", " + contract.Size(job.BytesDone))
	}

	if job.Omitted != "" {
		b.WriteString(", " + job.Omitted)
	}

	// Other reasons of completed jobs say that they did something else than usual.
	if job.Reason != "" && job.Reason != string(v1alpha1.PhaseCompleted) {
		b.WriteString(" (" + job.Reason + ")")
	}

	return b.String()
}

func failed(kind Kind, job jobs.Progress) string {
	if !job.Phase.Terminal() || job.Phase == v1alpha1.PhaseCompleted {
		return ""
	}

	text := fmt.Sprintf("volume %s: %s %s is %s", job.Volume, kind, job.Job, job.Phase)

	for _, part := range []string{job.Reason, job.Message} {
		if part != "" {
			text += ": " + part
		}
	}

	return text
}
