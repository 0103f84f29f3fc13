package cluster

import (
	"context"
	"fmt"
	"slices"

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
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/metrics"
	"github.com/estiba-dev/estiba/mover/state"
)

// ReconcileBackup looks after what is not its node's about one VolumeBackup.
func (c *Cluster) ReconcileBackup(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	job := &v1alpha1.VolumeBackup{}
	if found, err := c.read(ctx, req.Name, job); !found {
		return ctrl.Result{}, err
	}

	owner, backup, err := c.backupOwner(ctx, job)
	if err != nil {
		return ctrl.Result{}, err
	}

	if err := c.tellOfLost(ctx, job, owner, backup); err != nil {
		return settle(0, err)
	}

	unrouted := job.Labels[contract.LabelNode] == "" && !job.Status.Phase.Terminal()

	switch {
	case unrouted && claimed(job):
		return c.routeClaim(ctx, job, owner)
	case unrouted && !job.Spec.Cancel:
		return c.routeBackup(ctx, job, owner)
	case !unrouted:
		if done, err := c.lookAfterStaging(ctx, job); done || err != nil {
			return settle(c.Bounds.Soon, err)
		}
	}

	return c.supervise(ctx, job, &job.Status.JobStatus, state.Subject{
		Status: job.Status.JobStatus, Created: job.CreationTimestamp.Time, Cancel: job.Spec.Cancel,
		Asker: fmt.Sprintf("Backup %s of UID %s (spec.backup)", job.Spec.Backup.Name, job.Spec.Backup.UID), Again: "velero backup create",
	}, owner)
}

// claimed reports whether a job that no node has is looked at by its claim: one that names no pod, and one that was
// cancelled, which says why whatever has become of its pod.
func claimed(job *v1alpha1.VolumeBackup) bool {
	v := job.Spec.Volume

	return v.Claim != nil && (v.Pod.Name == "" || job.Spec.Cancel && state.Movable(job))
}

// routeBackup assigns a job that names no node to its pod's node. If that pod is gone, the job is routed by its
// claim, or ended where there is none.
func (c *Cluster) routeBackup(ctx context.Context, job *v1alpha1.VolumeBackup, owner state.Owner) (ctrl.Result, error) {
	var (
		pod  corev1.Pod
		seen *state.TargetPod
		ref  = job.Spec.Volume
	)

	err := c.Direct.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Pod.Name}, &pod)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("read pod %s/%s: %w", ref.Namespace, ref.Pod.Name, err)
	}

	if err == nil {
		seen = &state.TargetPod{
			Name: pod.Name, UID: string(pod.UID), Node: pod.Spec.NodeName, Deleting: !pod.DeletionTimestamp.IsZero(), Finished: target.Finished(&pod),
		}
	}

	node, f := state.RouteBackup(job, seen)
	if f == nil {
		return settle(0, c.label(ctx, job, node))
	}

	movable, err := c.movable(ctx, job)
	if err != nil {
		return ctrl.Result{}, err
	}

	if movable {
		return c.routeClaim(ctx, job, owner)
	}

	return settle(0, c.finish(ctx, job, &job.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseFailed, Reason: f.Reason, Message: f.Message}))
}

// movable reports whether the job can go on through another pod, which may be on another node: a hostPath that
// is bound to none is another folder there.
func (c *Cluster) movable(ctx context.Context, job *v1alpha1.VolumeBackup) (bool, error) {
	if !state.Movable(job) {
		return false, nil
	}

	_, pv, err := c.claimAndVolume(ctx, job.Spec.Volume)

	return err == nil && !loose(pv), err
}

// loose reports whether the volume is a hostPath that is bound to no node, and another folder on each.
func loose(pv *corev1.PersistentVolume) bool {
	return pv.Spec.HostPath != nil && pv.Spec.NodeAffinity == nil
}

// looseVolume returns the name of the claim's volume if it is loose and no pod but staging pods mounts it: where another
// one does, that says on which node the volume is.
func (c *Cluster) looseVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim, pods []state.TargetPod) (string, error) {
	mounted := slices.ContainsFunc(pods, func(p state.TargetPod) bool { return p.StagedFor == "" && !p.Finished })
	if claim == nil || claim.Spec.VolumeName == "" || mounted {
		return "", nil
	}

	var pv corev1.PersistentVolume
	if err := c.Direct.Get(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, &pv); client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read PersistentVolume %s: %w", claim.Spec.VolumeName, err)
	}

	if !loose(&pv) {
		return "", nil
	}

	return pv.Name, nil
}

// label assigns the job to the node.
func (c *Cluster) label(ctx context.Context, job client.Object, node string) error {
	before := job.DeepCopyObject().(client.Object)

	labels := map[string]string{}
	for k, v := range job.GetLabels() {
		labels[k] = v
	}

	labels[contract.LabelNode] = jobs.LabelValue(node)
	job.SetLabels(labels)

	if err := c.Client.Patch(ctx, job, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("give %T %s to node %s: %w", job, job.GetName(), node, err)
	}

	return nil
}

// ReconcileRestore returns one VolumeRestore to a node, and looks after what is not that node's about it.
func (c *Cluster) ReconcileRestore(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	job := &v1alpha1.VolumeRestore{}
	if found, err := c.read(ctx, req.Name, job); !found {
		return ctrl.Result{}, err
	}

	owner, err := c.restoreOwner(ctx, job.Spec.Restore)
	if err != nil {
		return ctrl.Result{}, err
	}

	if job.Labels[contract.LabelNode] == "" && !job.Status.Phase.Terminal() {
		return c.route(ctx, job, owner)
	}

	if err := c.unmark(ctx, job); err != nil {
		return settle(0, err)
	}

	if done, err := c.lookAfterStaging(ctx, job); done || err != nil {
		return settle(c.Bounds.Soon, err)
	}

	return c.supervise(ctx, job, &job.Status.JobStatus, state.Subject{
		Status: job.Status.JobStatus, Created: job.CreationTimestamp.Time, Cancel: job.Spec.Cancel,
		Asker: fmt.Sprintf("Restore %s of UID %s (spec.restore)", job.Spec.Restore.Name, job.Spec.Restore.UID), Again: "velero restore create",
	}, owner)
}

func (c *Cluster) route(ctx context.Context, job *v1alpha1.VolumeRestore, owner state.Owner) (ctrl.Result, error) {
	beats, err := c.Beats.All(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}

	claim, err := c.liveClaim(ctx, job.Spec.Target)
	if err != nil {
		return ctrl.Result{}, err
	}

	view := state.RestoreView{Owner: owner, Nodes: len(beats)}
	if view.Claim, err = c.faulty(ctx, claim); err != nil {
		return ctrl.Result{}, err
	}

	if view.Filling, err = c.filling(ctx, job, view.Claim); err != nil {
		return ctrl.Result{}, err
	}

	dec, pods, err := c.decide(job.Status.JobStatus, func(age podlist.Age) (state.Decision, []state.TargetPod, bool, error) {
		pods, stale, err := c.targetPods(ctx, job, age)
		if err != nil {
			return state.Decision{}, nil, false, err
		}

		view.Pods, view.Heartbeats = pods, heartbeats(pods, beats)

		if view.Claim.Loose, err = c.looseVolume(ctx, claim, pods); err != nil {
			return state.Decision{}, nil, false, err
		}

		return state.RouteRestore(job, view, c.Clock.Now(), c.Bounds), pods, stale, nil
	})
	if err != nil {
		return ctrl.Result{}, err
	}

	if dec.Marks() {
		if err := c.mark(ctx, job, claim); err != nil {
			return settle(0, err)
		}
	}

	if dec.Action == state.ActionRoute {
		if err := c.putBack(ctx, job); err != nil {
			return settle(0, err)
		}
	}

	return c.applyRoute(ctx, c.jobOf(job), dec, pods)
}

// heartbeats returns those of the pods' nodes.
func heartbeats(pods []state.TargetPod, beats map[string]state.Heartbeat) map[string]state.Heartbeat {
	out := map[string]state.Heartbeat{}
	for _, p := range pods {
		out[p.Node] = beats[jobs.LabelValue(p.Node)]
	}

	return out
}

func (c *Cluster) targetPods(ctx context.Context, job *v1alpha1.VolumeRestore, age podlist.Age) (pods []state.TargetPod, stale bool, err error) {
	ref := job.Spec.Target

	if ref.Kind == v1alpha1.VolumePersistentVolumeClaim {
		all, stale, err := c.Pods.In(ctx, ref.Namespace, age)
		if err != nil {
			return nil, false, err
		}

		return target.Pods(job, all), stale, nil
	}

	var pod corev1.Pod

	err = c.Direct.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Pod.Name}, &pod)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}

	if err != nil {
		return nil, false, fmt.Errorf("read pod %s/%s: %w", ref.Namespace, ref.Pod.Name, err)
	}

	return target.Pods(job, []corev1.Pod{pod}), false, nil
}

// supervise applies what the machine says about a job that a node has.
func (c *Cluster) supervise(ctx context.Context, job client.Object, status *v1alpha1.JobStatus, subject state.Subject, owner state.Owner) (ctrl.Result, error) {
	beats, err := c.Beats.All(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}

	awaited, err := c.awaited(ctx, job)
	if err != nil {
		return ctrl.Result{}, err
	}

	node := job.GetLabels()[contract.LabelNode]
	now := c.Clock.Now()
	dec := state.Supervise(subject, state.Supervision{
		Owner: owner, Node: node, Given: job.GetCreationTimestamp().Time, Heartbeat: beats[node], Awaited: awaited,
	}, now, c.Bounds)

	switch {
	case dec.Action == state.ActionRemove:
		return settle(0, c.remove(ctx, job))
	case dec.Action == state.ActionRequestCancel:
		return settle(dec.RequeueAfter, c.requestCancel(ctx, job, status, dec))
	case dec.Phase.Terminal() && !subject.Status.Phase.Terminal():
		return settle(0, c.finish(ctx, job, status, dec))
	case c.staged(job):
		// No event tells of a pod that wants the claim.
		return settle(c.Bounds.Recheck, nil)
	default:
		return settle(dec.RequeueAfter, nil)
	}
}

// awaited reports whether a restored pod has a gate that it has not left and that asks for the job, which has ended.
// The cache holds all restored pods.
func (c *Cluster) awaited(ctx context.Context, o client.Object) (bool, error) {
	job, ok := o.(*v1alpha1.VolumeRestore)
	if !ok || !job.Status.Phase.Terminal() {
		return false, nil
	}

	var list corev1.PodList
	if err := c.Client.List(ctx, &list, client.InNamespace(job.Spec.Target.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("list the restored pods of namespace %s: %w", job.Spec.Target.Namespace, err)
	}

	return slices.ContainsFunc(target.Pods(job, list.Items), func(p state.TargetPod) bool {
		return p.StagedFor == "" && !p.Deleting && !p.Finished && (p.Gate == state.GateAhead || p.Gate == state.GateThere)
	}), nil
}

func (c *Cluster) remove(ctx context.Context, job client.Object) error {
	uid := job.GetUID()
	if err := c.Client.Delete(ctx, job, client.Preconditions{UID: &uid}); err != nil {
		return fmt.Errorf("remove finished job %T %s: %w", job, job.GetName(), err)
	}

	return nil
}

// requestCancel writes down why before it asks, so that the job ends with that reason.
func (c *Cluster) requestCancel(ctx context.Context, job client.Object, status *v1alpha1.JobStatus, dec state.Decision) error {
	before := job.DeepCopyObject().(client.Object)

	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: state.ConditionCancel, Status: metav1.ConditionTrue, Reason: dec.Reason, Message: dec.Message,
		LastTransitionTime: metav1.NewTime(c.Clock.Now()),
	})

	if err := c.patchStatus(ctx, job, before); err != nil {
		return err
	}

	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true}}`))
	if err := c.Client.Patch(ctx, job, patch); err != nil {
		return fmt.Errorf("cancel %T %s: %w", job, job.GetName(), err)
	}

	c.event(job, true, dec.Reason, dec.Message)

	return nil
}

func (c *Cluster) finish(ctx context.Context, job client.Object, status *v1alpha1.JobStatus, dec state.Decision) error {
	before := job.DeepCopyObject().(client.Object)
	state.Apply(status, dec, c.Clock.Now())

	if err := c.patchStatus(ctx, job, before); err != nil {
		return err
	}

	c.event(job, true, dec.Reason, dec.Message)
	c.tellSubjects(ctx, job, dec, nil)

	switch j := job.(type) {
	case *v1alpha1.VolumeBackup:
		c.count("VolumeBackup", job, status, j.Spec.Volume.Namespace)
	case *v1alpha1.VolumeRestore:
		c.count("VolumeRestore", job, status, j.Spec.Target.Namespace)
	}

	return nil
}

func (c *Cluster) count(kind string, job client.Object, s *v1alpha1.JobStatus, namespace string) {
	j := metrics.Job{
		Kind: kind, Outcome: string(s.Phase), Reason: s.Reason, Namespace: namespace,
		Success: s.Phase == v1alpha1.PhaseCompleted, Created: job.GetCreationTimestamp().Time, Ended: c.Clock.Now(),
	}
	if s.StartTimestamp != nil {
		j.Started = s.StartTimestamp.Time
	}

	c.Metrics.JobEnded(j)
}
