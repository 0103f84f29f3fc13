package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/metrics"
	"github.com/estiba-dev/estiba/mover/state"
)

// Errors that the interfaces below wrap.
var (
	// ErrObjectNotFound: a Bucket has no object of that path.
	ErrObjectNotFound = errors.New("object not found")
	// ErrKeyMissing: there is no master key.
	ErrKeyMissing = errors.New("there is no master key")
	// ErrKeyInvalid: the master key's Secret holds no usable key.
	ErrKeyInvalid = errors.New("the master key can't be used")
)

// Bucket is the part of a backup storage location that the controller reads and
// writes itself. Paths are below the location's prefix.
type Bucket interface {
	// List returns the names right in a folder; one that does not exist is empty.
	List(ctx context.Context, folder string) (folders, files []string, err error)
	// Get reads a small object. Errors wrap ErrObjectNotFound where it applies.
	Get(ctx context.Context, path string) ([]byte, error)
	// PutIfAbsent writes an object where there is none of that path.
	PutIfAbsent(ctx context.Context, path string, content []byte) error
	// Put writes an object in place of what is there.
	Put(ctx context.Context, path string, content []byte) error
}

// Buckets opens buckets.
type Buckets interface {
	// Open opens the location's bucket.
	Open(ctx context.Context, location *velerov1.BackupStorageLocation) (Bucket, error)
}

// Keys holds the master key.
type Keys interface {
	// Fingerprints returns which master key there is, and which one was before; the latter is
	// empty if none is kept. Errors wrap ErrKeyMissing or ErrKeyInvalid where they apply.
	Fingerprints(ctx context.Context) (current, previous string, err error)
	// Create makes a master key, unless there is one by now.
	Create(ctx context.Context) error
}

// Cluster is what the controllers share.
type Cluster struct {
	// Namespace of Velero and the jobs.
	Namespace string
	// Client reads jobs, owners and locations from caches, and writes.
	Client client.Client
	// Direct reads from the API server.
	Direct client.Reader
	// Pods lists pods from the API server, for all jobs of a namespace at once.
	Pods *podlist.Lists
	// Staging lists this install's staging pods from a cache; see StagingCache.
	Staging client.Reader
	// Tasks runs workers.
	Tasks task.Tasks
	// Buckets opens the locations.
	Buckets Buckets
	// Keys holds the master key.
	Keys Keys
	// NewID makes the ID of a repository.
	NewID func() (string, error)
	// NewSeed makes what the keys of a repository are made of.
	NewSeed func() string
	// Beats knows which nodes' daemons live.
	Beats *Beats
	// Events records events.
	Events record.EventRecorder
	// Metrics counts.
	Metrics *metrics.Metrics
	// Clock is the source of the time.
	Clock clock.PassiveClock
	// Bounds of the state machine.
	Bounds state.Bounds
}

// read reads an object of Velero's namespace from the cache; found is false if there is none.
func (c *Cluster) read(ctx context.Context, name string, into client.Object) (found bool, err error) {
	err = c.Client.Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: name}, into)
	if apierrors.IsNotFound(err) {
		return false, nil
	}

	if err != nil {
		return false, fmt.Errorf("read %T %s/%s: %w", into, c.Namespace, name, err)
	}

	return true, nil
}

// patchStatus writes what changed in the object's status since before; it fails with a conflict if somebody wrote it since.
func (c *Cluster) patchStatus(ctx context.Context, object, before client.Object) error {
	p := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})

	data, err := p.Data(object)
	if err != nil {
		return fmt.Errorf("compare status of %T %s: %w", object, object.GetName(), err)
	}

	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) == nil && fields["status"] == nil {
		return nil
	}

	if err := c.Client.Status().Patch(ctx, object, p); err != nil {
		return fmt.Errorf("patch status of %T %s: %w", object, object.GetName(), err)
	}

	return nil
}

func (c *Cluster) event(object client.Object, failed bool, reason, message string) {
	kind := corev1.EventTypeNormal
	if failed {
		kind = corev1.EventTypeWarning
	}

	if message == "" {
		message = reason
	}

	c.Events.Event(object, kind, reason, message)
}

// refused reports whether the API server won't have the status, however often it is offered.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// settle makes a conflict, or an object that is gone, an ordinary thing: the cache will tell.
func settle(after time.Duration, err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}

	if err = client.IgnoreNotFound(err); err != nil {
		return ctrl.Result{}, err
	}

	return ctrl.Result{RequeueAfter: after}, nil
}
