package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
	"github.com/estiba-dev/estiba/plugins/settings"
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

// Session is what one plugin process knows of the cluster. All actions of a
// process share one. Velero may call them at the same time.
type Session struct {
	connect operation.Connect
	clock   clock.Clock
	poll    *operation.Poll

	mu    sync.Mutex
	known map[types.UID]remembered
	set   map[types.UID]settings.Settings
	// images are those of the node daemon, by Restore: a restored workload has one.
	images map[types.UID]string
	// unsaid are the errors that Velero has not been told yet, by Restore.
	unsaid map[types.UID][]error
	// starters are the pods that would start on a claim that is made, by namespace.
	starters map[string]starters
}

type remembered struct {
	at       time.Time
	location string
	begun    *metav1.Time
}

// NewSession returns a Session that knows nothing yet and has called nobody.
func NewSession(connect operation.Connect, c clock.Clock) *Session {
	s := &Session{
		connect: connect, clock: c,
		known: map[types.UID]remembered{}, set: map[types.UID]settings.Settings{}, images: map[types.UID]string{}, unsaid: map[types.UID][]error{},
		starters: map[string]starters{},
	}
	s.poll = operation.NewPoll(c, operation.NewLister(connect, (*jobs.Jobs).RestoresOf, jobs.RestoreProgress))

	return s
}

// location returns the backup storage location that Velero's Backup object names in
// this cluster. It also says in the log who is missing that would bring the data
// from there: they may come back, and jobs and gates wait for them within bounds.
func (s *Session) location(ctx context.Context, log logrus.FieldLogger, r *velerov1.Restore) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if k, ok := s.known[r.UID]; ok && s.clock.Since(k.at) < memory {
		return k.location, nil
	}

	c, err := s.connect()
	if err != nil {
		return "", err
	}

	var b velerov1.Backup
	if err := c.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Spec.BackupName}, &b); err != nil {
		return "", fmt.Errorf("read Backup %s/%s, which names the storage location of the data: %w", r.Namespace, r.Spec.BackupName, err)
	}

	for _, missing := range []error{s.alive(ctx, c, r.Namespace), s.led(ctx, c, r.Namespace)} {
		if missing != nil {
			log.Warnf("the data is asked for all the same, and pods wait at their gates: %v", missing)
		}
	}

	s.known[r.UID] = remembered{at: s.clock.Now(), location: b.Spec.StorageLocation, begun: b.Status.StartTimestamp}

	return b.Spec.StorageLocation, nil
}

const selector = contract.LabelComponent + "=" + contract.ComponentNode

// image returns the image of the node daemon, which holds the waiting program, too.
func (s *Session) image(ctx context.Context, r *velerov1.Restore) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if known := s.images[r.UID]; known != "" {
		return known, nil
	}

	namespace := r.Namespace

	c, err := s.connect()
	if err != nil {
		return "", err
	}

	var list appsv1.DaemonSetList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{contract.LabelComponent: contract.ComponentNode}); err != nil {
		return "", fmt.Errorf("look for Estiba's DaemonSet in namespace %s: %w", namespace, err)
	}

	for i := range list.Items {
		if containers := list.Items[i].Spec.Template.Spec.Containers; len(containers) > 0 {
			s.images[r.UID] = containers[0].Image

			return containers[0].Image, nil
		}
	}

	return "", fmt.Errorf("namespace %s has no DaemonSet with the label %s, which is Estiba's node daemon: apply your overlay of Estiba's manifests to it "+
		"(README, \"Install it beside your Velero\")", namespace, selector)
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

	return fmt.Errorf("no node daemon of Estiba has reported within %s, or the clocks of the nodes differ: see kubectl -n %s get daemonsets,pods -l %s",
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

	return fmt.Errorf("the controller of Estiba has not renewed Lease %s/%s within %s, or the clocks of the nodes differ: see kubectl -n %s get deployments,pods -l %s=%s",
		namespace, contract.ComponentController, heartbeatBound, namespace, contract.LabelComponent, contract.ComponentController)
}

// cancel asks for the end of the jobs. Bound is Velero's for their operation, where that is the cause, and else 0.
func (s *Session) cancel(ctx context.Context, names []string, namespace string, bound time.Duration) error {
	j, err := s.connect.Jobs(namespace)
	if err != nil {
		return err
	}

	var failures []error
	for _, name := range names {
		failures = append(failures, j.CancelRestore(ctx, name, bound))
	}

	return errors.Join(failures...)
}
