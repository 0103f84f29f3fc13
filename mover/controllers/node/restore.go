package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// restoreWork returns what a worker is to do about a restore, but for its volume.
func (n *Node) restoreWork(job *v1alpha1.VolumeRestore) task.Work {
	s := job.Spec
	r := &engine.RestoreRequest{
		Job:         s.Snapshot.Job,
		Expect:      jobs.ExpectedTags(s.Snapshot, s.Repository),
		Description: titleOf(s.Target),
		Existing:    engine.ExistingData(s.ExistingData),
		Owned:       state.Owned(job),
		Resumed:     job.Status.WritingSince != nil,
		Begun:       begun(job),
		OnMissing:   engine.MissingSnapshot(s.OnMissingSnapshot),
		OnFileError: engine.FileError(s.OnFileError),
	}

	if p := s.Previous; p != nil {
		r.Previous = &engine.Previous{
			Host: contract.SnapshotHost(s.Repository.Namespace), Path: p.Source, Before: p.Before.Time,
			Expect: map[string]string{contract.TagNamespace: s.Repository.Namespace},
		}
	}

	of := job.DeepCopy()

	return task.Work{
		Repository:  s.Repository,
		Restore:     r,
		BeforeWrite: func(ctx context.Context, snapshot string) error { return n.noteWriting(ctx, of, short(snapshot)) },
	}
}

// begun returns the ID of the snapshot that an earlier run of the job was let to write.
func begun(job *v1alpha1.VolumeRestore) string {
	if job.Status.WritingSince == nil {
		return ""
	}

	return job.Status.SnapshotID
}

// titleOf names a volume for people.
func titleOf(ref v1alpha1.VolumeReference) string {
	if ref.Claim != nil {
		return fmt.Sprintf("the volume of claim %s/%s", ref.Namespace, ref.Claim.Name)
	}

	return fmt.Sprintf("volume %s of pod %s/%s", ref.Name, ref.Namespace, ref.Pod.Name)
}

// How long and how often it is tried to write down that a worker is about to write.
const (
	noteWritingFor   = time.Minute
	noteWritingEvery = 500 * time.Millisecond
)

// noteWriting writes down in the job's status that its worker is about to write the snapshot
// into the volume: whoever takes the job up after a crash finds data there, and must know
// that it may be the job's own, and of what. It is not left to the next look at the job, for the worker waits.
func (n *Node) noteWriting(ctx context.Context, of *v1alpha1.VolumeRestore, snapshot string) error {
	var last error

	err := wait.PollUntilContextTimeout(ctx, noteWritingEvery, noteWritingFor, true, func(ctx context.Context) (bool, error) {
		var job v1alpha1.VolumeRestore

		last = n.Direct.Get(ctx, client.ObjectKeyFromObject(of), &job)

		switch {
		case apierrors.IsNotFound(last) || last == nil && !n.still(&job, of):
			return false, &task.BlockedError{Finding: state.Finding{
				Reason:  state.ReasonOwnerGone,
				Message: fmt.Sprintf("%s %s is gone, has ended or was taken from node %s, and its worker must not write", kindRestore, of.Name, n.Name),
			}}
		case last != nil:
			return false, nil //nolint:nilerr // It is asked again.
		case job.Status.WritingSince != nil && job.Status.SnapshotID == snapshot:
			return true, nil
		}

		before := job.DeepCopy()
		job.Status.SnapshotID = snapshot

		if job.Status.WritingSince == nil {
			job.Status.WritingSince = ptr.To(metav1.NewTime(n.Clock.Now()))
		}

		last = n.Client.Status().Patch(ctx, &job, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))

		return last == nil, nil
	})
	if wait.Interrupted(err) && last != nil {
		return &task.BlockedError{NotYet: true, Finding: state.Finding{
			Reason: state.ReasonAPIUnavailable, Message: fmt.Sprintf("write down that the restore is about to write (status.writingSince): %v", last),
		}}
	}

	return err
}

// still reports whether the job is the one that a worker was begun for, goes through
// the same pod and is this node's to do.
func (n *Node) still(job, begun *v1alpha1.VolumeRestore) bool {
	return job.UID == begun.UID && !job.Status.Phase.Terminal() && job.Labels[contract.LabelNode] == jobs.LabelValue(n.Name) &&
		equality.Semantic.DeepEqual(job.Status.Pod, begun.Status.Pod)
}

// note is what is to be said of a restore that ended well and not as usual.
func note(job *v1alpha1.VolumeRestore, r *engine.RestoreResult) *state.Finding {
	f := noteOtherwise(job, r)
	if r == nil || r.LeftOut == 0 {
		return f
	}

	var examples []string

	for _, o := range r.Summary.Omissions {
		if o.Reason == engine.OmittedDamaged || o.Reason == engine.OmittedUnwritable {
			examples = append(examples, fmt.Sprintf("%s (%s)", strings.Join(shorten(o.Examples[:min(len(o.Examples), namedLeftOut)]), ", "), o.Reason))
		}
	}

	left := fmt.Sprintf("%d entries could not be restored and were left out: %s (spec.onFileError is %s)",
		r.LeftOut, strings.Join(examples, "; "), v1alpha1.FileErrorSkip)
	if f != nil {
		left = f.Message + "; " + left
	}

	return &state.Finding{Reason: state.ReasonPartlyRestored, Message: left}
}

// namedLeftOut is how many entries of a kind that were left out a message names.
const namedLeftOut = 3

// noteOtherwise is what is to be said of a restore of something else than the snapshot asked for.
func noteOtherwise(job *v1alpha1.VolumeRestore, r *engine.RestoreResult) *state.Finding {
	switch {
	case r == nil:
		return nil
	case len(r.Kept) > 0:
		return &state.Finding{Reason: state.ReasonDataKept, Message: fmt.Sprintf(
			"%s holds data (%s) and was left as it is, nothing was restored (spec.existingData is %s)",
			titleOf(job.Spec.Target), strings.Join(shorten(r.Kept), ", "), v1alpha1.ExistingKeep)}
	case r.Missing == "":
		return nil
	case r.Instead == nil:
		return &state.Finding{Reason: state.ReasonLeftEmpty, Message: fmt.Sprintf(
			"%s; %s was left as it is, nothing was written (spec.onMissingSnapshot is %s)", r.Missing, titleOf(job.Spec.Target), v1alpha1.MissingEmpty)}
	default:
		return &state.Finding{Reason: state.ReasonPreviousRestored, Message: fmt.Sprintf(
			"%s; snapshot %s, taken at %s by backup %s, was restored instead (spec.onMissingSnapshot is %s)",
			r.Missing, r.Instead.ID, r.Instead.Time.UTC().Format(time.RFC3339), r.Instead.Tags[contract.TagBackup], v1alpha1.MissingPrevious)}
	}
}

// keepRestore writes a result into the status.
func keepRestore(job *v1alpha1.VolumeRestore, r *engine.RestoreResult) v1alpha1.Summary {
	if r == nil {
		return v1alpha1.Summary{}
	}

	job.Status.SnapshotID, job.Status.Summary = r.SnapshotID, summary(r.Summary)

	if r.Instead != nil {
		at := metav1.NewTime(r.Instead.Time)
		job.Status.SnapshotTimestamp = &at
	}

	return job.Status.Summary
}
