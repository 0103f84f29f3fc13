package node

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// Heartbeat renews a Lease for as long as the daemon runs, so that the
// controller can tell a node that works from one that is lost.
type Heartbeat struct {
	// Node whose daemon lives.
	Node string
	// Namespace of the Lease.
	Namespace string
	// Every is how often it is renewed.
	Every time.Duration
	// Client writes; reads must not come from a cache.
	Client client.Client
	// Clock ticks.
	Clock clock.WithTicker
	// LostAfter is how long the node may be silent before its work must end here,
	// which is some time before the controller gives it up; 0 turns that off.
	LostAfter time.Duration
	// Lost is called after each failure to renew once the node has been silent for that long.
	Lost func(ctx context.Context, silent time.Duration)

	// heard is when the last renewal that succeeded was begun.
	heard time.Time
}

// FenceMargin is how much earlier than the controller a daemon counts itself as lost: enough for a beat and for a worker's end.
const FenceMargin = 20 * time.Second

// LeaseName returns the name of the Lease.
func (h *Heartbeat) LeaseName() string { return "estiba-node-" + jobs.LabelValue(h.Node) }

// Start renews until ctx is done. It never gives up: the controller decides what silence means.
func (h *Heartbeat) Start(ctx context.Context) error {
	tick := h.Clock.NewTicker(h.Every)
	defer tick.Stop()

	h.heard = h.Clock.Now()

	for {
		h.beat(ctx)

		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
	}
}

// beat renews once. The time of a success is that before it was asked for: the
// controller has seen it no earlier.
func (h *Heartbeat) beat(ctx context.Context) {
	begun := h.Clock.Now()

	err := h.Renew(ctx)
	if err == nil {
		h.heard = begun
		return
	}

	if ctx.Err() != nil {
		return
	}

	log.FromContext(ctx).Error(err, "heartbeat failed; it is tried again", "node", h.Node)

	if silent := h.Clock.Since(h.heard); h.LostAfter > 0 && silent >= h.LostAfter {
		h.Lost(ctx, silent)
	}
}

// NeedLeaderElection returns false: every daemon has a heartbeat of its own.
func (h *Heartbeat) NeedLeaderElection() bool { return false }

// Renew renews the Lease once, or makes it.
func (h *Heartbeat) Renew(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, h.Every)
	defer stop()

	var lease coordinationv1.Lease

	err := h.Client.Get(ctx, types.NamespacedName{Namespace: h.Namespace, Name: h.LeaseName()}, &lease)
	if apierrors.IsNotFound(err) {
		lease = coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: h.Namespace, Name: h.LeaseName()}}
		h.fill(&lease)

		if err := h.Client.Create(ctx, &lease); err != nil {
			return fmt.Errorf("create heartbeat lease %s: %w", lease.Name, err)
		}

		return nil
	}

	if err != nil {
		return fmt.Errorf("read heartbeat lease %s: %w", h.LeaseName(), err)
	}

	h.fill(&lease)

	if err := h.Client.Update(ctx, &lease); err != nil {
		return fmt.Errorf("renew heartbeat lease %s: %w", lease.Name, err)
	}

	return nil
}

func (h *Heartbeat) fill(l *coordinationv1.Lease) {
	if l.Labels == nil {
		l.Labels = map[string]string{}
	}

	l.Labels[contract.LabelHeartbeat] = contract.HeartbeatNode
	l.Labels[contract.LabelExcludeFromBackup] = "true"
	l.Spec.HolderIdentity = ptr.To(h.Node)
	l.Spec.LeaseDurationSeconds = ptr.To(int32(h.Every.Seconds()))
	l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(h.Clock.Now()))
}
