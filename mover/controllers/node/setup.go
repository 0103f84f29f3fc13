package node

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// CacheOptions confine the daemon's caches to what is its node's: it neither
// holds nor watches anything of others.
func CacheOptions(node, namespace string) cache.Options {
	mine := cache.ByObject{
		Namespaces: map[string]cache.Config{namespace: {}},
		Label:      labels.SelectorFromSet(labels.Set{contract.LabelNode: jobs.LabelValue(node)}),
	}

	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&v1alpha1.VolumeBackup{}:  mine,
		&v1alpha1.VolumeRestore{}: mine,
		&corev1.Pod{}: {
			Field:     fields.OneTermEqualSelector("spec.nodeName", node),
			Transform: trimPod,
		},
	}}
}

// trimPod drops what is never looked at: a node's pods carry much of it.
func trimPod(o any) (any, error) {
	if pod, ok := o.(*corev1.Pod); ok {
		pod.ManagedFields = nil
		for i := range pod.Spec.Containers {
			pod.Spec.Containers[i].Env, pod.Spec.Containers[i].Args, pod.Spec.Containers[i].Command = nil, nil, nil
		}
	}

	return o, nil
}

// Changes takes word from the runner that a task stands differently, and wakes
// the controller whose job it is.
type Changes struct {
	backups  chan event.GenericEvent
	restores chan event.GenericEvent
}

// changesBuffer is how many words may wait; what doesn't fit is seen at the next look, a few seconds later.
const changesBuffer = 256

// NewChanges makes one.
func NewChanges() *Changes {
	return &Changes{backups: make(chan event.GenericEvent, changesBuffer), restores: make(chan event.GenericEvent, changesBuffer)}
}

// Notify wakes the controller of the job with that key. It never blocks.
func (c *Changes) Notify(namespace, key string) {
	to := c.backups
	if strings.HasPrefix(key, jobs.RestorePrefix) {
		to = c.restores
	}

	e := event.GenericEvent{Object: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: key}}}
	select {
	case to <- e:
	default:
	}
}

// parallel is how many jobs, or gates, are looked at at a time.
const parallel = 4

// Setup adds the controllers to the manager.
func (n *Node) Setup(mgr ctrl.Manager, keeper *GateKeeper, changes *Changes) error {
	options := controller.Options{MaxConcurrentReconciles: parallel}

	err := ctrl.NewControllerManagedBy(mgr).Named("volumebackup").WithOptions(options).
		For(&v1alpha1.VolumeBackup{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(n.backupsOfPod)).
		WatchesRawSource(source.Channel(changes.backups, &handler.EnqueueRequestForObject{})).
		Complete(reconcile.Func(n.ReconcileBackup))
	if err != nil {
		return fmt.Errorf("set up the controller of VolumeBackups: %w", err)
	}

	err = ctrl.NewControllerManagedBy(mgr).Named("volumerestore").WithOptions(options).
		For(&v1alpha1.VolumeRestore{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(n.restoresOfPod)).
		WatchesRawSource(source.Channel(changes.restores, &handler.EnqueueRequestForObject{})).
		Complete(reconcile.Func(n.ReconcileRestore))
	if err != nil {
		return fmt.Errorf("set up the controller of VolumeRestores: %w", err)
	}

	gated := predicate.NewPredicateFuncs(func(o client.Object) bool {
		// One whose annotation was lost waits for somebody to say so.
		pod, isPod := o.(*corev1.Pod)
		_, noted := o.GetAnnotations()[contract.AnnotationRestore]

		return noted || isPod && target.Gate(pod) != state.GateNone
	})

	err = ctrl.NewControllerManagedBy(mgr).Named("gate").WithOptions(options).
		For(&corev1.Pod{}, builder.WithPredicates(gated)).
		Watches(&v1alpha1.VolumeRestore{}, handler.EnqueueRequestsFromMapFunc(n.podsOfRestore)).
		Complete(keeper)
	if err != nil {
		return fmt.Errorf("set up the controller of gates: %w", err)
	}

	return nil
}

func (n *Node) backupsOfPod(ctx context.Context, pod client.Object) []reconcile.Request {
	var list v1alpha1.VolumeBackupList
	if n.Client.List(ctx, &list, client.InNamespace(n.Namespace)) != nil {
		return nil
	}

	var out []reconcile.Request

	for i := range list.Items {
		j := &list.Items[i]
		if v := readThrough(j); !j.Status.Phase.Terminal() && v.Namespace == pod.GetNamespace() && v.Pod.Name == pod.GetName() {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(j)})
		}
	}

	return out
}

func (n *Node) restoresOfPod(ctx context.Context, pod client.Object) []reconcile.Request {
	var list v1alpha1.VolumeRestoreList
	if n.Client.List(ctx, &list, client.InNamespace(n.Namespace)) != nil {
		return nil
	}

	var out []reconcile.Request

	for i := range list.Items {
		j := &list.Items[i]
		if !j.Status.Phase.Terminal() && j.Spec.Target.Namespace == pod.GetNamespace() {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(j)})
		}
	}

	return out
}

// podsOfRestore returns the pods whose gates may wait for the job: all gated ones of its namespace.
func (n *Node) podsOfRestore(ctx context.Context, o client.Object) []reconcile.Request {
	job, ok := o.(*v1alpha1.VolumeRestore)
	if !ok {
		return nil
	}

	var list corev1.PodList
	if n.Client.List(ctx, &list, client.InNamespace(job.Spec.Target.Namespace)) != nil {
		return nil
	}

	var out []reconcile.Request

	for i := range list.Items {
		p := &list.Items[i]
		if _, gated := p.Annotations[contract.AnnotationRestore]; gated {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: p.Namespace, Name: p.Name}})
		}
	}

	return out
}
