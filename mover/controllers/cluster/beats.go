package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// Beats knows when the daemons of the nodes were last heard of. It goes by when
// it saw a Lease change, on its own clock: those of the nodes may be wrong. A
// controller that has just started therefore gives every node the full time.
type Beats struct {
	reader    client.Reader
	namespace string
	clock     clock.PassiveClock

	mu   sync.Mutex
	seen map[string]beat
}

type beat struct {
	renewed time.Time // as the node's clock says
	at      time.Time // as ours does
}

// NewBeats makes one that reads Leases of the namespace.
func NewBeats(r client.Reader, namespace string, c clock.PassiveClock) *Beats {
	return &Beats{reader: r, namespace: namespace, clock: c, seen: map[string]beat{}}
}

// All returns the heartbeats by the value of the label that names the node on jobs.
func (b *Beats) All(ctx context.Context) (map[string]state.Heartbeat, error) {
	var leases coordinationv1.LeaseList

	err := b.reader.List(ctx, &leases, client.InNamespace(b.namespace), client.MatchingLabels{contract.LabelHeartbeat: contract.HeartbeatNode})
	if err != nil {
		return nil, fmt.Errorf("list heartbeat leases: %w", err)
	}

	b.mu.Lock()
	defer b.mu.Unlock()

	var (
		now  = b.clock.Now()
		next = make(map[string]beat, len(leases.Items))
		out  = make(map[string]state.Heartbeat, len(leases.Items))
	)

	for i := range leases.Items {
		spec := leases.Items[i].Spec
		if spec.HolderIdentity == nil || spec.RenewTime == nil {
			continue
		}

		node := jobs.LabelValue(*spec.HolderIdentity)

		old, known := b.seen[node]
		if !known || !old.renewed.Equal(spec.RenewTime.Time) {
			old = beat{renewed: spec.RenewTime.Time, at: now}
		}

		next[node], out[node] = old, state.Heartbeat{Renewed: old.at}
	}

	b.seen = next

	return out, nil
}
