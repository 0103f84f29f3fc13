package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// Bounds of the actions' calls.
const (
	// executeBound bounds one Execute: Velero sets no deadline.
	executeBound = 60 * time.Second
	// progressBound bounds one question for progress without the hold.
	progressBound = 15 * time.Second
	// memory is how long what was read of the cluster serves further calls.
	memory = 5 * time.Second
	// heartbeatBound is how old a sign of life may be. Daemons and the controller
	// give one every few seconds, by their node's clock; the rest is for clocks that differ.
	heartbeatBound = 2 * time.Minute
)

// Connect gives the client of the cluster; it is called when one is needed, and often.
type Connect func() (client.Client, error)

// Session is what one plugin process knows of the cluster. All actions of a
// process share one. Velero may call them at the same time.
type Session struct {
	connect Connect
	clock   clock.Clock
	poll    *operation.Poll

	mu    sync.Mutex
	known map[types.UID]remembered
}

type remembered struct {
	at    time.Time
	means means
}

// means are what a gated pod needs to be let in again.
type means struct {
	// image that holds the waiting program.
	image string
	// location is the backup storage location that Velero's Backup object names in this cluster.
	location string
}

// NewSession gives a Session that knows nothing yet and has called nobody.
func NewSession(connect Connect, c clock.Clock) *Session {
	s := &Session{connect: connect, clock: c, known: map[types.UID]remembered{}}
	s.poll = operation.NewPoll(c, s.list)

	return s
}

func (s *Session) jobs(namespace string) (*jobs.Jobs, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	return jobs.New(c, namespace), nil
}

func owner(r *velerov1.Restore) string { return r.Namespace + "/" + string(r.UID) }

// list is the Lister of the session's Poll.
func (s *Session) list(ctx context.Context, owner string) (map[string]jobs.Progress, error) {
	namespace, uid, _ := strings.Cut(owner, "/")

	j, err := s.jobs(namespace)
	if err != nil {
		return nil, err
	}

	list, err := j.RestoresOf(ctx, types.UID(uid))
	if err != nil {
		return nil, err
	}

	found := make(map[string]jobs.Progress, len(list))
	for i := range list {
		found[list[i].Name] = jobs.RestoreProgress(&list[i])
	}

	return found, nil
}

// meansOf makes sure that somebody would let a gated pod in. Errors say what is
// missing and how to mend it.
func (s *Session) meansOf(ctx context.Context, r *velerov1.Restore) (means, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if k, ok := s.known[r.UID]; ok && s.clock.Since(k.at) < memory {
		return k.means, nil
	}

	c, err := s.connect()
	if err != nil {
		return means{}, err
	}

	var m means

	if m.image, err = image(ctx, c, r.Namespace); err != nil {
		return means{}, err
	}

	if err := s.alive(ctx, c, r.Namespace); err != nil {
		return means{}, err
	}

	if err := s.led(ctx, c, r.Namespace); err != nil {
		return means{}, err
	}

	var b velerov1.Backup
	if err := c.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Spec.BackupName}, &b); err != nil {
		return means{}, fmt.Errorf("read Backup %s/%s, which names the storage location of the data: %w", r.Namespace, r.Spec.BackupName, err)
	}

	m.location = b.Spec.StorageLocation
	s.known[r.UID] = remembered{at: s.clock.Now(), means: m}

	return m, nil
}

const selector = contract.LabelComponent + "=" + contract.ComponentNode

// image gives the image of the node daemon, which holds the waiting program, too.
func image(ctx context.Context, c client.Client, namespace string) (string, error) {
	var list appsv1.DaemonSetList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{contract.LabelComponent: contract.ComponentNode}); err != nil {
		return "", fmt.Errorf("look for Estiba's DaemonSet in namespace %s: %w", namespace, err)
	}

	for i := range list.Items {
		if containers := list.Items[i].Spec.Template.Spec.Containers; len(containers) > 0 {
			return containers[0].Image, nil
		}
	}

	return "", fmt.Errorf("namespace %s has no DaemonSet with the label %s, which is Estiba's node daemon: apply your overlay of Estiba's manifests to it "+
		"(README, \"Install it beside your Velero\"), then restore again", namespace, selector)
}

// alive looks for any fresh heartbeat: on which node the pod will be isn't known yet.
func (s *Session) alive(ctx context.Context, c client.Client, namespace string) error {
	var list coordinationv1.LeaseList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{contract.LabelHeartbeat: contract.HeartbeatNode}); err != nil {
		return fmt.Errorf("list the heartbeats of the node daemons in namespace %s: %w", namespace, err)
	}

	for _, l := range list.Items {
		if l.Spec.RenewTime != nil && s.clock.Since(l.Spec.RenewTime.Time) < heartbeatBound {
			return nil
		}
	}

	return fmt.Errorf("no node daemon of Estiba has reported within %s, or the clocks of the nodes differ: see kubectl -n %s get daemonsets,pods -l %s, then restore again",
		heartbeatBound, namespace, selector)
}

// led looks for a controller: without one, no job ever gets a node.
func (s *Session) led(ctx context.Context, c client.Client, namespace string) error {
	var l coordinationv1.Lease

	err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: contract.ComponentController}, &l)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read Lease %s/%s, the sign of life of Estiba's controller: %w", namespace, contract.ComponentController, err)
	}

	if err == nil && l.Spec.RenewTime != nil && s.clock.Since(l.Spec.RenewTime.Time) < heartbeatBound {
		return nil
	}

	return fmt.Errorf("the controller of Estiba has not renewed Lease %s/%s within %s, or the clocks of the nodes differ: see kubectl -n %s get deployments,pods -l %s=%s, then restore again",
		namespace, contract.ComponentController, heartbeatBound, namespace, contract.LabelComponent, contract.ComponentController)
}

func (s *Session) cancel(ctx context.Context, names []string, namespace string) error {
	j, err := s.jobs(namespace)
	if err != nil {
		return err
	}

	var failures []error
	for _, name := range names {
		failures = append(failures, j.CancelRestore(ctx, name))
	}

	return errors.Join(failures...)
}
