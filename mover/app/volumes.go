package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/gate"
	"github.com/estiba-dev/estiba/mover/nodevolume"
)

const (
	// openTimeout is how long a volume may take to be opened. A mount whose server
	// is gone answers never, and can't be interrupted.
	openTimeout = 30 * time.Second
	// maxHung bounds how many such openings are left behind: each holds a thread.
	maxHung = 8
)

// finder finds a volume's folder on this node: a nodevolume.Finder.
type finder interface {
	Open(ctx context.Context, v nodevolume.Volume) (*os.File, nodevolume.Found, error)
}

// volumes opens the volumes of this node's pods, and never waits for one for long.
type volumes struct {
	finder finder
	clock  clock.Clock

	mu   sync.Mutex
	hung map[*opening]struct{}
}

// opening is one attempt to open a volume; guarded by volumes.mu.
type opening struct {
	volume nodevolume.Volume
	done   bool
}

func newVolumes(f finder, c clock.Clock) *volumes {
	return &volumes{finder: f, clock: c, hung: map[*opening]struct{}{}}
}

// found is what an opening came to.
type found struct {
	file *os.File
	err  error
}

// open opens the folder in a goroutine of its own, which is left behind where
// the volume does not answer. As long as it hangs there is no second one for the volume.
func (v *volumes) open(ctx context.Context, at nodevolume.Volume) (*os.File, error) {
	if err := v.refuse(at); err != nil {
		return nil, err
	}

	// The goroutine gives its file away, or closes it: nobody takes it once abandoned is closed.
	given, abandoned := make(chan found), make(chan struct{})
	o := &opening{volume: at}

	go func() {
		file, _, err := v.finder.Open(ctx, at)
		v.ended(o)

		select {
		case given <- found{file, err}:
		case <-abandoned:
			if file != nil {
				_ = file.Close()
			}
		}
	}()

	defer close(abandoned)

	timeout := v.clock.NewTimer(openTimeout)
	defer timeout.Stop()

	select {
	case f := <-given:
		return f.file, f.err
	case <-ctx.Done():
		v.leave(o)
		return nil, fmt.Errorf("open the volume: %w", context.Cause(ctx))
	case <-timeout.C():
		v.leave(o)
		return nil, fmt.Errorf("%w: it did not answer for %s; %s", node.ErrNotMounted, openTimeout, seeServer)
	}
}

const seeServer = "see whether the server behind its mount is there"

// refuse returns an error where another attempt would only hang, too.
func (v *volumes) refuse(at nodevolume.Volume) error {
	v.mu.Lock()
	defer v.mu.Unlock()

	for o := range v.hung {
		if o.volume == at {
			return fmt.Errorf("%w: it did not answer, and still does not; %s", node.ErrNotMounted, seeServer)
		}
	}

	if len(v.hung) >= maxHung {
		return fmt.Errorf("%w: %d volumes of this node do not answer, and no more are tried; see whether the servers behind their mounts are there", node.ErrNotMounted, len(v.hung))
	}

	return nil
}

// leave leaves an attempt behind that has not ended.
func (v *volumes) leave(o *opening) {
	v.mu.Lock()
	defer v.mu.Unlock()

	if !o.done {
		v.hung[o] = struct{}{}
	}
}

func (v *volumes) ended(o *opening) {
	v.mu.Lock()
	defer v.mu.Unlock()

	o.done = true
	delete(v.hung, o)
}

// Open opens the volume's folder.
func (v *volumes) Open(ctx context.Context, want node.Volume) (*os.File, error) {
	at := nodevolume.Volume{PodUID: string(want.PodUID), HostPath: want.HostPath, MustBeMounted: want.MustBeMounted}

	switch {
	case want.PersistentVolume != "":
		at.PersistentVolume = want.PersistentVolume
	case want.Kind == v1alpha1.VolumeNFS:
		at.NFS = want.Name
	case want.Kind == v1alpha1.VolumeCSI:
		at.CSI = want.Name
	case want.Kind != v1alpha1.VolumeHostPath:
		at.EmptyDir = want.Name
	}

	f, err := v.open(ctx, at)

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
	volumes *volumes
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
