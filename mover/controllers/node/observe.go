package node

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/state"
)

// observe never fails: what can't be looked at is one of the things that a job
// waits for, with a bound, and must not keep a job from being cancelled.
func (d *drive) observe(ctx context.Context, run task.Run) state.Observed {
	seen := state.Observed{Task: run.Task}
	if d.status.Phase.Terminal() {
		return seen
	}

	if lost := d.fenced.look(d.object.GetUID()); lost != nil {
		seen.PodGone = lost

		return seen
	}

	if run.State == state.TaskQueued || run.State == state.TaskRunning {
		if gone := d.podGone(ctx); d.movable() {
			seen.MountLost = d.lost(gone)
		} else {
			seen.PodGone = gone
		}

		// One that is queued is checked as a whole when its turn comes.
		if run.State == state.TaskRunning {
			seen.Spoiled = d.guarded(ctx)
		}

		return seen
	}

	if run.State == state.TaskEnded && run.Failure == nil {
		d.guardEnd(ctx, &seen)

		if d.note != nil {
			seen.Task.Note = d.note(run.Result)
		}

		return seen
	}

	if d.stopped(d.Clock.Now()) {
		return seen
	}

	v, err := d.check(ctx)
	if err != nil {
		seen.Waiting = unavailable(err)

		return seen
	}

	seen.Permanent, seen.Waiting = v.permanent, v.waiting
	if d.movable() {
		seen.MountLost = d.lost(v.permanent)
	}

	d.claimed(v)

	return seen
}

// staged reports whether the volume is mounted for the job by its staging pod.
func (d *drive) staged() bool { return d.pod.Name == contract.StagingPodName(d.object.GetName()) }

// movable reports whether the job can go on through another pod when its own is gone.
func (d *drive) movable() bool {
	job, ok := d.object.(*v1alpha1.VolumeBackup)

	return d.staged() || ok && state.Movable(job)
}

// lost returns what is to be said if the finding is that the pod is gone or going. Somebody drains its node or
// updates its Deployment, perhaps: that is no fault of the job, and the controller finds another way to the claim.
func (d *drive) lost(f *state.Finding) *state.Finding {
	if f == nil {
		return nil
	}

	switch f.Reason {
	case state.ReasonPodNotFound, state.ReasonPodReplaced, state.ReasonPodDeleted, state.ReasonPodNotRunning:
		lost := state.PodLost(*f)
		if d.staged() {
			lost = state.StageLost(d.pod.Name)
		}

		return &lost
	default:
		return nil
	}
}

// claimed keeps which claim a restore is about to fill.
func (d *drive) claimed(v verdict) {
	job, ok := d.object.(*v1alpha1.VolumeRestore)
	if ok && v.ok() && job.Status.ClaimUID == "" {
		job.Status.ClaimUID, d.claimUID = v.claim, v.claim
	}
}

func unavailable(err error) *state.Finding {
	return &state.Finding{Reason: state.ReasonAPIUnavailable, Message: err.Error()}
}

// guarded looks from time to time who else came to the volume while it is worked on.
func (d *drive) guarded(ctx context.Context) *state.Finding {
	if d.guard == nil || !d.guards.due(d.object.GetUID(), d.Clock.Now(), d.Bounds.Recheck) {
		return nil
	}

	// The restores that run here may share what they look at.
	found, err := d.guard(ctx, podlist.Age{Most: d.Bounds.Recheck / 2, Changed: d.Bounds.Recheck / 2})
	if err != nil {
		// The next look comes soon, and the last one before the end is not left out.
		log.FromContext(ctx).Info("the pods of a running restore could not be looked at", "job", d.object.GetName(), "error", err.Error())
	}

	return found
}

// guardEnd looks once more before the job is completed.
func (d *drive) guardEnd(ctx context.Context, seen *state.Observed) {
	if d.guard == nil {
		return
	}

	found, err := d.guard(ctx, podlist.Age{})
	if err != nil {
		seen.Waiting = unavailable(err)
	}

	seen.Spoiled = found
}

// podGone reports whether the pod must get its volume back. That it is being deleted is taken from the
// cache, for nothing must be waited for then; that it is gone is not: a cache that lags must not end a job.
func (d *drive) podGone(ctx context.Context) *state.Finding {
	var pod corev1.Pod

	err := d.Client.Get(ctx, d.pod, &pod)
	if apierrors.IsNotFound(err) || err == nil && pod.UID != d.podUID {
		pod = corev1.Pod{}
		err = d.Direct.Get(ctx, d.pod, &pod)
	}

	switch {
	case apierrors.IsNotFound(err) || err == nil && pod.UID != d.podUID:
		return &state.Finding{Reason: state.ReasonPodNotFound, Message: fmt.Sprintf("pod %s of UID %s went away during the work", d.pod, d.podUID)}
	case err != nil:
		// The next look, in a moment, tells.
		return nil
	case !pod.DeletionTimestamp.IsZero():
		return &state.Finding{Reason: state.ReasonPodDeleted, Message: fmt.Sprintf("pod %s is being deleted, and its volume was let go for it", d.pod)}
	case target.Finished(&pod):
		return &state.Finding{Reason: state.ReasonPodNotRunning, Message: fmt.Sprintf("pod %s ended during the work", d.pod)}
	default:
		return nil
	}
}
