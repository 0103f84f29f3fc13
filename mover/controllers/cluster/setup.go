package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// CacheOptions confine the caches to Velero's namespace and, of pods, to those
// that Velero has restored: they only wake the controller, which reads all
// others when it needs them.
func CacheOptions(namespace string) (cache.Options, error) {
	restored, err := labels.Parse(contract.LabelRestoreName)
	if err != nil {
		return cache.Options{}, fmt.Errorf("selector of restored pods: %w", err)
	}

	return cache.Options{
		DefaultNamespaces: map[string]cache.Config{namespace: {}},
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}: {Namespaces: map[string]cache.Config{cache.AllNamespaces: {}}, Label: restored},
			// The master key alone, and of it no more than that it has changed: see repositoriesOfKey.
			&corev1.Secret{}: {
				Namespaces: map[string]cache.Config{namespace: {}},
				Field:      fields.OneTermEqualSelector("metadata.name", contract.MasterKeySecret),
			},
			&coordinationv1.Lease{}: {
				Namespaces: map[string]cache.Config{namespace: {}},
				Label:      labels.SelectorFromSet(labels.Set{contract.LabelHeartbeat: contract.HeartbeatNode}),
			},
		},
	}, nil
}

// StagingCache returns a cache of the install's staging pods in all namespaces, run by the manager, whose own cache holds
// other pods.
func StagingCache(mgr ctrl.Manager, namespace string) (client.Reader, error) {
	ours := labels.SelectorFromSet(labels.Set{contract.LabelInstall: jobs.LabelValue(namespace)})

	c, err := cache.New(mgr.GetConfig(), cache.Options{
		Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(),
		ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Label: ours}},
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache of staging pods: %w", err)
	}

	if err := mgr.Add(c); err != nil {
		return nil, fmt.Errorf("add the cache of staging pods: %w", err)
	}

	return c, nil
}

func (c *Cluster) listHere(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if err := c.Client.List(ctx, list, append(opts, client.InNamespace(c.Namespace))...); err != nil {
		return fmt.Errorf("list %T: %w", list, err)
	}

	return nil
}

// Changes takes word from the runner that a task stands differently, and wakes
// the controller whose work it is.
type Changes struct {
	deletions    chan event.GenericEvent
	repositories chan event.GenericEvent
}

// changesBuffer is how many words may wait; what doesn't fit is seen at the next look, a few seconds later.
const changesBuffer = 256

// NewChanges makes one.
func NewChanges() *Changes {
	return &Changes{deletions: make(chan event.GenericEvent, changesBuffer), repositories: make(chan event.GenericEvent, changesBuffer)}
}

// Notify wakes the controller of the work with that key. It never blocks.
func (c *Changes) Notify(namespace, key string) {
	name, repository := strings.CutPrefix(key, RepositoryKey(""))
	to := c.deletions

	if repository {
		to = c.repositories
	}

	e := event.GenericEvent{Object: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}}
	select {
	case to <- e:
	default:
	}
}

// parallel is how many objects of a kind are looked at at a time.
const parallel = 4

// sweepEvery is how often staging pods are looked at whose jobs may have ended.
const sweepEvery = 30 * time.Second

// sweep runs on the leader, at its start and every now and then.
func (c *Cluster) sweep(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := c.Sweep(ctx); err != nil {
			log.FromContext(ctx).Error(err, "staging pods could not be swept")
		}
	}, sweepEvery)

	return nil
}

// Setup adds the controllers to the manager.
func (c *Cluster) Setup(mgr ctrl.Manager, repos *Repositories, changes *Changes) error {
	options := controller.Options{MaxConcurrentReconciles: parallel}
	newController := func(name string) *ctrl.Builder {
		return ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(options)
	}

	if err := mgr.Add(manager.RunnableFunc(c.sweep)); err != nil {
		return fmt.Errorf("add the sweeper of staging pods: %w", err)
	}

	err := newController("volumebackup").
		For(&v1alpha1.VolumeBackup{}).
		Watches(&velerov1.Backup{}, handler.EnqueueRequestsFromMapFunc(c.jobsOfBackup)).
		Complete(reconcile.Func(c.ReconcileBackup))
	if err != nil {
		return fmt.Errorf("set up the controller of VolumeBackups: %w", err)
	}

	err = newController("volumerestore").
		For(&v1alpha1.VolumeRestore{}).
		Watches(&velerov1.Restore{}, handler.EnqueueRequestsFromMapFunc(c.jobsOfRestore)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(c.unroutedOf)).
		Complete(reconcile.Func(c.ReconcileRestore))
	if err != nil {
		return fmt.Errorf("set up the controller of VolumeRestores: %w", err)
	}

	err = newController("restoredpod").
		For(&corev1.Pod{}, builder.WithPredicates(predicate.NewPredicateFuncs(c.adopted))).
		Complete(reconcile.Func(c.ReconcileAdopted))
	if err != nil {
		return fmt.Errorf("set up the controller of restored pods: %w", err)
	}

	err = newController("snapshotdeletion").
		For(&v1alpha1.SnapshotDeletion{}).
		WatchesRawSource(source.Channel(changes.deletions, &handler.EnqueueRequestForObject{})).
		Complete(reconcile.Func(c.ReconcileDeletion))
	if err != nil {
		return fmt.Errorf("set up the controller of SnapshotDeletions: %w", err)
	}

	err = newController("repository").
		For(&v1alpha1.Repository{}, builder.WithPredicates(AskedAgain())).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(c.repositoriesOfKey)).
		Watches(&velerov1.BackupStorageLocation{}, handler.EnqueueRequestsFromMapFunc(c.repositoriesIn)).
		Watches(&v1alpha1.VolumeBackup{}, handler.EnqueueRequestsFromMapFunc(missed)).
		WatchesRawSource(source.Channel(changes.repositories, &handler.EnqueueRequestForObject{})).
		Complete(repos)
	if err != nil {
		return fmt.Errorf("set up the controller of Repositories: %w", err)
	}

	return nil
}

// AskedAgain passes on what asks for a look at a Repository. Its own status does
// not: a look that writes it would bring about the next.
func AskedAgain() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
			e.ObjectOld.GetAnnotations()[contract.AnnotationLookAgain] != e.ObjectNew.GetAnnotations()[contract.AnnotationLookAgain]
	}}
}

func (c *Cluster) jobsOfBackup(ctx context.Context, o client.Object) []reconcile.Request {
	var list v1alpha1.VolumeBackupList
	if c.listHere(ctx, &list, client.MatchingLabels{contract.LabelBackupName: jobs.LabelValue(o.GetName())}) != nil {
		return nil
	}

	out := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}

	return out
}

func (c *Cluster) jobsOfRestore(ctx context.Context, o client.Object) []reconcile.Request {
	var list v1alpha1.VolumeRestoreList
	if c.listHere(ctx, &list, client.MatchingLabels{contract.LabelRestoreName: jobs.LabelValue(o.GetName())}) != nil {
		return nil
	}

	out := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}

	return out
}

// unroutedOf returns the restores that may wait for the pod.
func (c *Cluster) unroutedOf(ctx context.Context, pod client.Object) []reconcile.Request {
	c.Pods.Changed(pod.GetNamespace())

	if _, gated := pod.GetAnnotations()[contract.AnnotationRestore]; !gated {
		return nil
	}

	var list v1alpha1.VolumeRestoreList
	if c.listHere(ctx, &list) != nil {
		return nil
	}

	var out []reconcile.Request

	for i := range list.Items {
		j := &list.Items[i]
		if j.Labels[contract.LabelNode] == "" && !j.Status.Phase.Terminal() && j.Spec.Target.Namespace == pod.GetNamespace() {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(j)})
		}
	}

	return out
}

// repositoriesOfKey returns all repositories when the master key's Secret has changed: it may open those that
// did not open, and no more those that did.
func (c *Cluster) repositoriesOfKey(ctx context.Context, secret client.Object) []reconcile.Request {
	if secret.GetName() != contract.MasterKeySecret {
		return nil
	}

	return c.repositories(ctx, func(*v1alpha1.Repository) bool { return true })
}

// repositoriesIn returns the repositories of a location that are not well, and those that were found where it
// doesn't point any more. Velero writes the status of a location every minute: all others need no look for that.
func (c *Cluster) repositoriesIn(ctx context.Context, o client.Object) []reconcile.Request {
	location, ok := o.(*velerov1.BackupStorageLocation)
	if !ok {
		return nil
	}

	place, err := jobs.Place(location)

	return c.repositories(ctx, func(r *v1alpha1.Repository) bool {
		moved := err == nil && r.Status.Place != "" && r.Status.Place != place

		return r.Spec.BackupStorageLocation == location.Name && (moved || r.Status.Phase == v1alpha1.RepositoryNotReady)
	})
}

// missed returns the repository that a job did not find in its bucket. Whoever asks next for a volume of that
// namespace is not to be sent there, too.
func missed(_ context.Context, o client.Object) []reconcile.Request {
	job, ok := o.(*v1alpha1.VolumeBackup)
	if !ok || job.Status.Reason != string(engine.CodeRepositoryNotFound) {
		return nil
	}

	ref := job.Spec.Repository

	return []reconcile.Request{{NamespacedName: client.ObjectKey{
		Namespace: job.Namespace, Name: jobs.RepositoryName(ref.BackupStorageLocation, ref.Namespace),
	}}}
}

func (c *Cluster) repositories(ctx context.Context, wanted func(*v1alpha1.Repository) bool) []reconcile.Request {
	var list v1alpha1.RepositoryList
	if c.listHere(ctx, &list) != nil {
		return nil
	}

	var out []reconcile.Request

	for i := range list.Items {
		if r := &list.Items[i]; wanted(r) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(r)})
		}
	}

	return out
}
