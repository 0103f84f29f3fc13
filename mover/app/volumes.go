package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/gate"
	"github.com/estiba-dev/estiba/mover/nodevolume"
)

// volumes opens the volumes of this node's pods.
type volumes struct{ finder *nodevolume.Finder }

// Open opens the volume's folder.
func (v volumes) Open(ctx context.Context, want node.Volume) (*os.File, error) {
	at := nodevolume.Volume{PodUID: string(want.PodUID), HostPath: want.HostPath, MustBeMounted: want.MustBeMounted}
	if want.PersistentVolume != "" {
		at.PersistentVolume = want.PersistentVolume
	} else {
		at.EmptyDir = want.Name
	}

	f, _, err := v.finder.Open(ctx, at)

	switch {
	case errors.Is(err, nodevolume.ErrNotMounted), errors.Is(err, nodevolume.ErrNoVolume):
		return nil, fmt.Errorf("%w: %w", node.ErrNotMounted, err)
	case errors.Is(err, nodevolume.ErrHostPath), errors.Is(err, nodevolume.ErrAmbiguous), errors.Is(err, nodevolume.ErrName):
		return nil, fmt.Errorf("%w: %w", node.ErrUnsupported, err)
	default:
		return f, err
	}
}

// gates writes into the gates of this node's pods. Nothing stays open in between.
type gates struct {
	volumes volumes
	now     func() time.Time
}

// Progress shows a line in the pod's gate.
func (g gates) Progress(ctx context.Context, pod types.UID, line string) error {
	return g.in(ctx, pod, func(at *gate.Gate) error { return at.SetProgress(line) })
}

// Outcome opens the pod's gate or says why it stays closed.
func (g gates) Outcome(ctx context.Context, pod types.UID, o contract.GateOutcome) error {
	return g.in(ctx, pod, func(at *gate.Gate) error {
		err := at.SetOutcome(o)
		if errors.Is(err, gate.ErrFinal) {
			// It was opened by force, or by an earlier daemon: so be it.
			return nil
		}

		return err
	})
}

func (g gates) in(ctx context.Context, pod types.UID, write func(*gate.Gate) error) (err error) {
	dir, err := g.volumes.Open(ctx, node.Volume{PodUID: pod, Name: contract.GateVolume})
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // it was only read through

	at, err := gate.Open(dir, g.now)
	if err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}

	defer func() {
		if closeErr := at.Close(); err == nil {
			err = closeErr
		}
	}()

	return write(at)
}
