package jobs

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// Progress is what a job's status says, without its kind.
type Progress struct {
	// Job is the name of the job.
	Job string
	// Volume is the claim's name, or POD/VOLUME for a volume without one.
	Volume string
	// Item whose operation reports the job, a claim or a pod; empty where that isn't known.
	Item string
	// Node that works on the job; empty while none does.
	Node string
	// Phase of the job; never empty.
	Phase v1alpha1.Phase
	// Reason for the phase in one word.
	Reason string
	// Message for people.
	Message string
	// Omitted says what a completed job left out that somebody could miss; empty where there is nothing such.
	Omitted string
	// BytesDone and BytesTotal are in bytes; the total is an estimate, and 0 while unknown.
	BytesDone, BytesTotal int64
	// Created is when the job was asked for.
	Created time.Time
	// Started is when the worker was started; zero before.
	Started time.Time
	// Ended is when the job reached a final phase; zero before.
	Ended time.Time
}

// BackupProgress reads the progress of a VolumeBackup.
func BackupProgress(job *v1alpha1.VolumeBackup) Progress {
	p := progress(job.ObjectMeta, job.Spec.Volume, job.Status.JobStatus)
	p.Item = reportedBy(job)

	return p
}

func reportedBy(job *v1alpha1.VolumeBackup) string {
	switch v := job.Spec.Volume; {
	case job.Spec.RequestedBy == v1alpha1.RequestedByClaim && v.Claim != nil:
		return "claim/" + v.Namespace + "/" + v.Claim.Name
	case job.Spec.RequestedBy == v1alpha1.RequestedByPod && v.Pod.Name != "":
		return "pod/" + v.Namespace + "/" + v.Pod.Name
	default:
		return ""
	}
}

// RestoreProgress reads the progress of a VolumeRestore.
func RestoreProgress(job *v1alpha1.VolumeRestore) Progress {
	return progress(job.ObjectMeta, job.Spec.Target, job.Status.JobStatus)
}

func progress(object metav1.ObjectMeta, volume v1alpha1.VolumeReference, status v1alpha1.JobStatus) Progress {
	p := Progress{
		Job:        object.Name,
		Volume:     volumeTitle(volume),
		Node:       status.Node,
		Phase:      status.Phase,
		Reason:     status.Reason,
		Message:    status.Message,
		BytesDone:  status.Progress.BytesDone,
		BytesTotal: status.Progress.TotalBytes,
		Created:    object.CreationTimestamp.Time,
		Started:    moment(status.StartTimestamp),
		Ended:      moment(status.CompletionTimestamp),
	}

	if c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionNothingOmitted); c != nil && c.Status == metav1.ConditionFalse {
		p.Omitted = c.Message
	}

	if p.Phase == "" {
		p.Phase = v1alpha1.PhaseNew
	}

	return p
}

func volumeTitle(v v1alpha1.VolumeReference) string {
	if v.Claim != nil {
		return v.Claim.Name
	}

	return v.Pod.Name + "/" + v.Name
}

func moment(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}

	return t.Time
}
