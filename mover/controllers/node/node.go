package node

import (
	"context"
	"errors"
	"os"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/metrics"
	"github.com/estiba-dev/estiba/mover/state"
)

// Volume says which folder of this node to open.
type Volume struct {
	// PodUID of the pod that mounts the volume.
	PodUID types.UID
	// Name of the volume in the pod.
	Name string
	// Kind of the volume.
	Kind v1alpha1.VolumeKind
	// PersistentVolume is the name of the PersistentVolume; empty where there is none.
	PersistentVolume string
	// HostPath is the path of the folder of the node that the volume is, which
	// the kubelet mounts nowhere among the pod's volumes; empty for all others.
	HostPath string
	// MustBeMounted says that the folder alone is not the volume.
	MustBeMounted bool
}

// Errors that a Volumes wraps.
var (
	// ErrNotMounted: the volume is not there yet.
	ErrNotMounted = errors.New("volume is not mounted yet")
	// ErrUnsupported: the volume can't be moved from this node.
	ErrUnsupported = errors.New("volume is not supported")
)

// Volumes opens volumes.
type Volumes interface {
	// Open opens the volume's folder. Errors wrap ErrNotMounted or ErrUnsupported where they apply.
	Open(ctx context.Context, v Volume) (*os.File, error)
}

// Gates writes into the gates of the pods on this node.
type Gates interface {
	// Progress shows a line in the pod's gate. Errors wrap ErrNotMounted if the gate is not there yet.
	Progress(ctx context.Context, pod types.UID, line string) error
	// Outcome opens the pod's gate or says why it stays closed. Errors wrap ErrNotMounted if the gate is not there yet.
	Outcome(ctx context.Context, pod types.UID, o contract.GateOutcome) error
}

// Node is what the controllers of one node's daemon share.
type Node struct {
	// Name of the node.
	Name string
	// Namespace of Velero and the jobs.
	Namespace string
	// Client reads jobs and pods of this node from caches, and writes statuses.
	Client client.Client
	// Direct reads from the API server.
	Direct client.Reader
	// Pods lists pods from the API server, for all restores of a namespace at once.
	Pods *podlist.Lists
	// Tasks runs the workers.
	Tasks task.Tasks
	// Volumes opens volumes.
	Volumes Volumes
	// Events records events.
	Events record.EventRecorder
	// Metrics counts.
	Metrics *metrics.Metrics
	// Clock is the source of the time.
	Clock clock.WithTicker
	// Bounds of the state machine.
	Bounds state.Bounds

	guards guards
	fenced fenced
}
