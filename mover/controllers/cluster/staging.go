package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// routeClaim returns a backup of a claim that names no pod to the node of a pod
// that mounts the claim, if need be of a staging pod that is made for it.
func (c *Cluster) routeClaim(ctx context.Context, job *v1alpha1.VolumeBackup, owner state.Owner) (ctrl.Result, error) {
	beats, err := c.Beats.All(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}

	claim, err := c.liveClaim(ctx, job.Spec.Volume)
	if err != nil {
		return ctrl.Result{}, err
	}

	view := state.ClaimView{Owner: owner, Claim: seen(claim)}
	if view.Unfilled, err = c.unfilled(ctx, claim); err != nil {
		return ctrl.Result{}, err
	}

	dec, pods, err := c.decide(job.Status.JobStatus, func(age podlist.Age) (state.Decision, []state.TargetPod, bool, error) {
		pods, stale, err := c.claimPods(ctx, job.Spec.Volume, age)
		if err != nil {
			return state.Decision{}, nil, false, err
		}

		view.Pods, view.Heartbeats = pods, heartbeats(pods, beats)

		return state.RouteClaim(job, view, c.Clock.Now(), c.Bounds), pods, stale, nil
	})
	if err != nil {
		return ctrl.Result{}, err
	}

	return c.applyRoute(ctx, c.jobOf(job), dec, pods)
}

// routable is a job of either kind that is to be given to a node.
type routable struct {
	object  client.Object
	status  *v1alpha1.JobStatus
	volume  v1alpha1.VolumeReference
	chosen  **v1alpha1.PodReference
	kind    string
	restore bool
}

func (c *Cluster) jobOf(o client.Object) routable {
	if job, ok := o.(*v1alpha1.VolumeRestore); ok {
		return routable{o, &job.Status.JobStatus, job.Spec.Target, &job.Status.Pod, "VolumeRestore", true}
	}

	job := o.(*v1alpha1.VolumeBackup)

	return routable{o, &job.Status.JobStatus, job.Spec.Volume, &job.Status.Pod, "VolumeBackup", false}
}

// applyRoute does what was decided about a job that no node has.
func (c *Cluster) applyRoute(ctx context.Context, j routable, dec state.Decision, pods []state.TargetPod) (ctrl.Result, error) {
	if dec.Action == state.ActionStage {
		refused, err := c.stage(ctx, j)
		if err != nil {
			return ctrl.Result{}, err
		}

		if refused != nil {
			dec = *refused
		}
	}

	if dec.Action == state.ActionUnstage || dec.Phase.Terminal() {
		if err := c.unstage(ctx, j.object, j.volume.Namespace); err != nil {
			return ctrl.Result{}, err
		}
	}

	before := j.object.DeepCopyObject().(client.Object)
	kept := j.status.DeepCopy()
	state.Apply(j.status, dec, c.Clock.Now())

	switch dec.Action {
	case state.ActionRoute:
		*j.chosen, j.status.Node = &dec.Route.Pod, dec.Route.Node
	case state.ActionUnstage:
		*j.chosen, j.status.Node, j.status.Attempts = nil, "", state.Interrupted(*kept)
	default:
	}

	// The pod is written before the label: the node's daemon sees the job by the label.
	if err := c.patchStatus(ctx, j.object, before); err != nil {
		if refused(err) {
			*j.status = *kept
			return settle(0, c.finish(ctx, j.object, j.status, state.Unwritable(err)))
		}

		return settle(0, err)
	}

	if news(kept, dec) {
		c.event(j.object, dec.Phase == v1alpha1.PhaseFailed, dec.Reason, dec.Message)
	}

	if dec.Phase.Terminal() {
		c.tellSubjects(ctx, j.object, dec, pods)
		c.count(j.kind, j.object, j.status, j.volume.Namespace)
	}

	if dec.Action == state.ActionRoute {
		return settle(c.Bounds.Recheck, c.label(ctx, j.object, dec.Route.Node))
	}

	return settle(dec.RequeueAfter, nil)
}

// news reports whether the decision is worth an event. That the staging pod is lost the daemon may have written down
// before, but it has told nobody.
func news(before *v1alpha1.JobStatus, dec state.Decision) bool {
	return before.Phase != dec.Phase || before.Reason != dec.Reason || dec.Action == state.ActionUnstage
}

// staged reports whether a job goes through its staging pod and has not ended.
func (c *Cluster) staged(o client.Object) bool {
	switch o.(type) {
	case *v1alpha1.VolumeBackup, *v1alpha1.VolumeRestore:
	default:
		return false
	}

	j := c.jobOf(o)
	p := *j.chosen

	return p != nil && p.Name == contract.StagingPodName(o.GetName()) && !j.status.Phase.Terminal()
}

// lookAfterStaging removes the staging pod of a job that has ended, has one that a node works on make way, and takes
// a job back whose pod is gone. It reports whether the job was taken from its node.
func (c *Cluster) lookAfterStaging(ctx context.Context, o client.Object) (bool, error) {
	j := c.jobOf(o)
	p := *j.chosen

	switch {
	case c.staged(o):
		return c.yield(ctx, o)
	case j.status.Reason == state.ReasonPodLost && !j.status.Phase.Terminal():
		return c.takeBack(ctx, j, state.Finding{Reason: j.status.Reason, Message: j.status.Message}, nil)
	case p != nil && p.Name == contract.StagingPodName(o.GetName()):
		return false, c.unstage(ctx, o, j.volume.Namespace)
	default:
		return false, nil
	}
}

// yield takes a job back from the node of its staging pod where a pod came for which that must make way, or where
// others took that away, and reports whether it did.
func (c *Cluster) yield(ctx context.Context, o client.Object) (bool, error) {
	j := c.jobOf(o)

	pods, err := c.podsOf(ctx, o, podlist.Age{Most: c.Bounds.Soon})
	if err != nil {
		return false, err
	}

	claim, err := c.claim(ctx, j.volume)
	if err != nil {
		return false, err
	}

	f := state.Yields(o.GetName(), *j.status, state.StagedView{Through: **j.chosen, Claim: claim, Pods: pods, Restore: j.restore})
	if f == nil {
		return false, nil
	}

	return c.takeBack(ctx, j, *f, pods)
}

// takeBack takes a job from its node for the reason. The label goes first: without it, the node's daemon lets go of
// the volume at once, and can't end the job any more.
func (c *Cluster) takeBack(ctx context.Context, j routable, f state.Finding, pods []state.TargetPod) (bool, error) {
	before := j.object.DeepCopyObject().(client.Object)
	labels := j.object.GetLabels()
	delete(labels, contract.LabelNode)
	j.object.SetLabels(labels)

	if err := c.Client.Patch(ctx, j.object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return true, fmt.Errorf("take %s %s from its node: %w", j.kind, j.object.GetName(), err)
	}

	_, err := c.applyRoute(ctx, j, state.Yielding(*j.status, f, c.Clock.Now(), c.Bounds), pods)

	return true, err
}

func (c *Cluster) podsOf(ctx context.Context, o client.Object, age podlist.Age) ([]state.TargetPod, error) {
	if job, ok := o.(*v1alpha1.VolumeRestore); ok {
		pods, _, err := c.targetPods(ctx, job, age)

		return pods, err
	}

	pods, _, err := c.claimPods(ctx, c.jobOf(o).volume, age)

	return pods, err
}

func (c *Cluster) claimPods(ctx context.Context, ref v1alpha1.VolumeReference, age podlist.Age) (pods []state.TargetPod, stale bool, err error) {
	all, stale, err := c.Pods.In(ctx, ref.Namespace, age)
	if err != nil {
		return nil, false, err
	}

	return target.ClaimPods(ref.Claim.Name, all), stale, nil
}

// claim looks at the claim of a volume; one that has none is as good as not found.
func (c *Cluster) claim(ctx context.Context, ref v1alpha1.VolumeReference) (state.Claim, error) {
	claim, err := c.liveClaim(ctx, ref)
	if err != nil {
		return state.Claim{}, err
	}

	return c.faulty(ctx, claim)
}

// shared reports whether pods on several nodes may mount the volume at a time. Where a
// mode for one node is among them, it may be mounted in that one.
func shared(modes []corev1.PersistentVolumeAccessMode) bool {
	one := slices.Contains(modes, corev1.ReadWriteOnce) || slices.Contains(modes, corev1.ReadWriteOncePod)

	return slices.Contains(modes, corev1.ReadWriteMany) || slices.Contains(modes, corev1.ReadOnlyMany) && !one
}

// stage makes the job's staging pod, unless it is there. The decision is what
// becomes of the job if there can be none.
func (c *Cluster) stage(ctx context.Context, j routable) (*state.Decision, error) {
	refuse := func(cause string, again bool) (*state.Decision, error) {
		d := state.StagingRefused(*j.status, cause, again, c.Clock.Now(), c.Bounds)
		return &d, nil
	}

	if d, err := c.crowded(ctx, j); d != nil || err != nil {
		return d, err
	}

	daemon, err := c.daemonPod(ctx)
	if err != nil || daemon == nil {
		if err == nil {
			return refuse(fmt.Sprintf("namespace %s has no DaemonSet with the label %s=%s, whose image it would run", c.Namespace, contract.LabelComponent, contract.ComponentNode), true)
		}

		return nil, err
	}

	s := staging{
		job: j.object.GetName(), install: jobs.LabelValue(c.Namespace),
		namespace: j.volume.Namespace, claim: j.volume.Claim.Name, readOnly: !j.restore, daemon: *daemon,
	}

	var ranges corev1.LimitRangeList
	if err := c.Direct.List(ctx, &ranges, client.InNamespace(s.namespace)); err != nil {
		return nil, fmt.Errorf("list limit ranges of namespace %s: %w", s.namespace, err)
	}

	s.limits = ranges.Items

	if err := c.place(ctx, j.volume, &s); err != nil {
		return nil, err
	}

	switch err := c.Client.Create(ctx, s.pod()); {
	case err == nil:
		return nil, nil
	case apierrors.IsAlreadyExists(err):
		return c.taken(ctx, s)
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsNotFound(err):
		return refuse(err.Error(), strings.Contains(err.Error(), "exceeded quota"))
	default:
		return nil, fmt.Errorf("make the staging pod of %s: %w", s.job, err)
	}
}

// taken looks who has the name of a staging pod that was not among those of its
// claim a moment ago.
func (c *Cluster) taken(ctx context.Context, s staging) (*state.Decision, error) {
	var pod corev1.Pod

	err := c.Direct.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: contract.StagingPodName(s.job)}, &pod)
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}

	ours := target.StagedFor(&pod) == s.job && pod.Labels[contract.LabelInstall] == s.install
	if ours && len(target.ClaimPods(s.claim, []corev1.Pod{pod})) == 1 {
		return nil, nil
	}

	d := state.StagingNameTaken(pod.Namespace + "/" + pod.Name)

	return &d, nil
}

// daemonPod returns what the node daemons' pods are made from; nil where there is no DaemonSet.
func (c *Cluster) daemonPod(ctx context.Context) (*corev1.PodSpec, error) {
	var list appsv1.DaemonSetList

	err := c.Direct.List(ctx, &list, client.InNamespace(c.Namespace), client.MatchingLabels{contract.LabelComponent: contract.ComponentNode})
	if err != nil {
		return nil, fmt.Errorf("look for the daemons' DaemonSet in namespace %s: %w", c.Namespace, err)
	}

	for i := range list.Items {
		if spec := &list.Items[i].Spec.Template.Spec; len(spec.Containers) > 0 {
			return spec, nil
		}
	}

	return nil, nil
}

// place finds out on which nodes the claim's volume can be had, and which claim it is.
func (c *Cluster) place(ctx context.Context, ref v1alpha1.VolumeReference, s *staging) error {
	claim, pv, err := c.claimAndVolume(ctx, ref)
	if err != nil {
		return err
	}

	s.bound, s.claimUID = pv.Spec.NodeAffinity != nil, claim.UID

	return nil
}

// unstage deletes the job's staging pod, if there is one.
func (c *Cluster) unstage(ctx context.Context, job client.Object, namespace string) error {
	var pod corev1.Pod

	err := c.Direct.Get(ctx, types.NamespacedName{Namespace: namespace, Name: contract.StagingPodName(job.GetName())}, &pod)
	if err != nil {
		return client.IgnoreNotFound(err)
	}

	if pod.Labels[contract.LabelStaging] != job.GetName() || !pod.DeletionTimestamp.IsZero() {
		return nil
	}

	return c.deletePod(ctx, &pod)
}

func (c *Cluster) deletePod(ctx context.Context, pod *corev1.Pod) error {
	uid := pod.UID
	if err := c.Client.Delete(ctx, pod, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete staging pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	return nil
}
