package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/metrics"
	"github.com/estiba-dev/estiba/mover/state"
)

// drive is one look at one job: what is the same for backups and restores.
type drive struct {
	*Node
	kind   string
	object client.Object
	status *v1alpha1.JobStatus
	pod    types.NamespacedName
	podUID types.UID
	// volumeName is the volume's name in the pod.
	volumeName string
	claim      string
	// omitted is what became of what a job of the kind left out.
	omitted string
	// claimUID is that of the claim, once it is known.
	claimUID types.UID

	// check looks at the live objects.
	check func(ctx context.Context) (verdict, error)
	// stopped reports whether the job is to end, whatever a check would give.
	stopped func(now time.Time) bool
	// guard looks whether somebody else may write to the volume while it is worked on.
	guard func(ctx context.Context, age podlist.Age) (*state.Finding, error)
	// decide asks the state machine.
	decide func(o state.Observed, now time.Time) state.Decision
	// work returns what to begin, but for the fields that every work has.
	work func() task.Work
	// note returns what is to be said of a result that is not quite what was asked for; nil where there is none such.
	note func(r task.Result) *state.Finding
	// keep writes a result into the object's status, and returns its summary.
	keep func(r task.Result) v1alpha1.Summary
}

// step observes, decides and applies. What must not wait for the API server,
// letting go of a volume, comes before the status is written; what must not be
// forgotten comes after it.
func (d *drive) step(ctx context.Context) (ctrl.Result, error) {
	var (
		key    = d.object.GetName()
		before = d.object.DeepCopyObject().(client.Object)
		run, _ = d.Tasks.Look(key)
	)

	if run.State != state.TaskNone && run.UID != workUID(d.object.GetUID(), d.podUID) {
		d.Tasks.End(key, task.Forget)
		return ctrl.Result{RequeueAfter: d.Bounds.Soon}, nil
	}

	seen := d.observe(ctx, run)
	was := d.status.Phase
	now := d.Clock.Now()
	dec := d.decide(seen, now).Bounded()

	d.end(key, dec)
	changed := state.Apply(d.status, dec, now)

	if !was.Terminal() {
		d.keepRun(run, dec)
		changed = true
	}

	if changed {
		err := d.patch(ctx, before)
		if refused(err) {
			return conflict(d.giveUp(ctx, before, err))
		}

		if err != nil {
			return conflict(err)
		}
	}

	if was != dec.Phase {
		d.tell(dec, now)
	}

	if dec.Action == state.ActionStart {
		d.begin(key)
	}

	if dec.Phase.Terminal() {
		d.guards.drop(d.object.GetUID())
		d.fenced.drop(d.object.GetUID())
	}

	if dec.Phase.Terminal() && run.State == state.TaskEnded {
		d.Tasks.End(key, task.Forget)
	}

	return ctrl.Result{RequeueAfter: dec.RequeueAfter}, nil
}

// workUID distinguishes one run of a job from another: one through a pod that the job was
// taken from again holds that pod's mount, and is not the run through the next.
func workUID(job, pod types.UID) types.UID { return job + "/" + pod }

// refused reports whether the API server won't have the status, however often it is offered.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// giveUp ends a job whose status the API server refuses with one that says just
// that: tried again and again, the job would never end.
func (d *drive) giveUp(ctx context.Context, before client.Object, cause error) error {
	d.Tasks.End(d.object.GetName(), task.Abort)
	d.restoreStatus(before)

	now := d.Clock.Now()
	dec := state.Unwritable(cause)
	state.Apply(d.status, dec, now)

	if err := d.patch(ctx, before); err != nil {
		return err
	}

	d.tell(dec, now)

	return nil
}

// restoreStatus puts back what the API server has taken before.
func (d *drive) restoreStatus(before client.Object) {
	switch o := d.object.(type) {
	case *v1alpha1.VolumeBackup:
		before.(*v1alpha1.VolumeBackup).Status.DeepCopyInto(&o.Status)
	case *v1alpha1.VolumeRestore:
		before.(*v1alpha1.VolumeRestore).Status.DeepCopyInto(&o.Status)
	}
}

func conflict(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		// Somebody else wrote it; the cache brings what.
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}

	return ctrl.Result{}, client.IgnoreNotFound(err)
}

func (d *drive) end(key string, dec state.Decision) {
	switch {
	case dec.Action == state.ActionKill:
		d.Tasks.End(key, task.Abort)
	case dec.Action == state.ActionCancel && atOnce(dec.Reason):
		// An open descriptor keeps the kubelet from unmounting, and two must not write: nothing is waited for.
		d.Tasks.End(key, task.Abort)
	case dec.Action == state.ActionCancel:
		d.Tasks.End(key, task.Cancel)
	}
}

func atOnce(reason string) bool {
	switch reason {
	case state.ReasonNodeLost, state.ReasonPodDeleted, state.ReasonPodNotFound, state.ReasonPodNotRunning, state.ReasonUngatedPod, state.ReasonGatePassed:
		return true
	default:
		return false
	}
}

func (d *drive) begin(key string) {
	w := d.work()
	w.UID = workUID(d.object.GetUID(), d.podUID)
	w.Attempt = d.status.Attempts + 1
	w.Volume = d.volume()
	w.OpenVolume = d.open
	d.Tasks.Begin(key, w)
}

// volume names the volume for people, so that no other one has that name.
func (d *drive) volume() string {
	if d.claim != "" {
		return fmt.Sprintf("claim %s/%s of UID %s", d.pod.Namespace, d.claim, d.claimUID)
	}

	return fmt.Sprintf("volume %s of pod %s of UID %s", d.volumeName, d.pod, d.podUID)
}

// open is called when the work has its slot: minutes may have passed since the last look.
func (d *drive) open(ctx context.Context) (*os.File, error) {
	v, err := d.check(ctx)
	if err != nil {
		return nil, &task.BlockedError{Finding: state.Finding{Reason: state.ReasonAPIUnavailable, Message: err.Error()}, NotYet: true}
	}

	if v.permanent != nil {
		return nil, &task.BlockedError{Finding: *v.permanent}
	}

	if v.waiting != nil {
		return nil, &task.BlockedError{Finding: *v.waiting, NotYet: true}
	}

	f, err := d.Volumes.Open(ctx, v.volume)

	switch {
	case errors.Is(err, ErrNotMounted):
		return nil, &task.BlockedError{Finding: state.Finding{Reason: state.ReasonVolumeNotMounted, Message: err.Error()}, NotYet: true}
	case errors.Is(err, ErrUnsupported):
		return nil, &task.BlockedError{Finding: state.Finding{Reason: state.ReasonVolumeUnsupported, Message: err.Error()}}
	case err != nil:
		return nil, fmt.Errorf("open volume %s of pod %s: %w", v.volume.Name, d.pod, err)
	default:
		return f, nil
	}
}

// keepRun writes what is known of the run into the status.
func (d *drive) keepRun(run task.Run, dec state.Decision) {
	d.status.Node = d.Name

	if run.State == state.TaskNone {
		return
	}

	switch lost := state.Lost(dec.Reason); {
	case lost && dec.Action == state.ActionKill:
		// The run has not failed, and doesn't count.
		d.status.Attempts = run.Attempt - 1
	case !lost && run.Ran:
		d.status.Attempts = max(d.status.Attempts, run.Attempt)
	}

	if p := run.Progress; p.BytesDone > 0 || p.FilesDone > 0 || p.TotalBytes > 0 {
		d.status.Progress = progressOf(p)
	}

	if run.State == state.TaskQueued && run.Position > 0 && dec.Action != state.ActionKill {
		d.status.Message = fmt.Sprintf("waits for a free slot on its node; number %d in the queue", run.Position)
	}

	d.keepFences(run.Fences)

	if dec.Phase == v1alpha1.PhaseCompleted {
		s := d.keep(run.Result)
		d.keepOmissions(s.Omissions, dec)
		d.status.Progress = progressOf(engine.Progress{BytesDone: s.Bytes, TotalBytes: s.Bytes, FilesDone: s.Files, TotalFiles: s.Files})
	}
}

func progressOf(p engine.Progress) v1alpha1.Progress {
	text := contract.Size(max(p.BytesDone, 0))
	if p.BytesDone < p.TotalBytes {
		text += " of " + contract.Size(p.TotalBytes)
	}

	return v1alpha1.Progress{BytesDone: p.BytesDone, TotalBytes: p.TotalBytes, FilesDone: p.FilesDone, TotalFiles: p.TotalFiles, Text: text}
}

func (d *drive) keepFences(f *task.Fences) {
	if f == nil {
		return
	}

	c := metav1.Condition{Type: state.ConditionFenced, Status: metav1.ConditionTrue, Reason: "AllFences", Message: state.Cut(f.Detail), LastTransitionTime: metav1.NewTime(d.Clock.Now())}
	if len(f.Missing) > 0 {
		c.Status, c.Reason = metav1.ConditionFalse, "FenceMissing"
	}

	old := meta.FindStatusCondition(d.status.Conditions, state.ConditionFenced)
	if old == nil || old.Status != c.Status {
		for _, m := range f.Missing {
			d.Metrics.FenceMissing(m)
		}

		if len(f.Missing) > 0 {
			d.Events.Event(d.object, corev1.EventTypeWarning, c.Reason, c.Message)
		}
	}

	meta.SetStatusCondition(&d.status.Conditions, c)
}

// patch writes the status; it fails with a conflict if somebody wrote it since.
func (d *drive) patch(ctx context.Context, before client.Object) error {
	p := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})

	data, err := p.Data(d.object)
	if err != nil {
		return fmt.Errorf("compare status of %s %s: %w", d.kind, d.object.GetName(), err)
	}

	if unchanged(data) {
		return nil
	}

	if err := d.Client.Status().Patch(ctx, d.object, p); err != nil {
		return fmt.Errorf("patch status of %s %s: %w", d.kind, d.object.GetName(), err)
	}

	return nil
}

// tell records what happened, in the same words everywhere.
func (d *drive) tell(dec state.Decision, now time.Time) {
	kind := corev1.EventTypeNormal
	if dec.Phase == v1alpha1.PhaseFailed || dec.Phase == v1alpha1.PhaseCanceled {
		kind = corev1.EventTypeWarning
	}

	text := dec.Message
	if text == "" {
		text = string(dec.Phase)
	}

	d.Events.Event(d.object, kind, dec.Reason, text)

	if dec.Phase == v1alpha1.PhaseInProgress || dec.Phase.Terminal() {
		about := fmt.Sprintf("%s %s: %s", d.kind, d.object.GetName(), text)

		d.Events.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: d.pod.Namespace, Name: d.pod.Name, UID: d.podUID}, kind, dec.Reason, about)

		if d.claim != "" {
			d.Events.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: d.pod.Namespace, Name: d.claim, UID: d.claimUID}, kind, dec.Reason, about)
		}
	}

	if job, ok := d.object.(*v1alpha1.VolumeBackup); ok && job.Status.LostPacks > 0 {
		d.Events.Event(job, corev1.EventTypeWarning, eventLostPacks, fmt.Sprintf(
			"the store has lost or altered %d blobs of repository %s; this backup is whole, and earlier snapshots that need them are damaged: see to the store", job.Status.LostPacks, job.Spec.Repository.ID))
	}

	d.tellOmissions()

	if dec.Phase.Terminal() {
		d.count(dec, now)
	}
}

// eventLostPacks is the reason of an event about status.lostPacks.
const eventLostPacks = "LostPacks"

func (d *drive) count(dec state.Decision, now time.Time) {
	j := metrics.Job{
		Kind: d.kind, Outcome: string(dec.Phase), Reason: dec.Reason, Namespace: d.pod.Namespace,
		Success: dec.Phase == v1alpha1.PhaseCompleted, Created: d.object.GetCreationTimestamp().Time, Ended: now,
	}
	if t := d.status.StartTimestamp; t != nil {
		j.Started = t.Time
	}

	var s v1alpha1.Summary

	switch o := d.object.(type) {
	case *v1alpha1.VolumeBackup:
		s = o.Status.Summary
		j.VolumeBytes, j.StoredBytes = s.ReadBytes, s.StoredBytes
	case *v1alpha1.VolumeRestore:
		s = o.Status.Summary
		j.VolumeBytes = s.Bytes
	}

	j.Omissions = map[string]int64{}
	for _, o := range s.Omissions {
		reason := engine.OmissionReason(o.Reason)
		if !reason.Known() {
			reason = engine.OmittedUnknown // a worker's word makes no new series
		}

		j.Omissions[string(reason)] += o.Count
	}

	d.Metrics.JobEnded(j)
}
