package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/nodevolume"
)

// dead is a node on which volumes whose pods' UIDs begin with "dead" answer when let.
type dead struct {
	let    chan struct{}
	opened chan *os.File
	file   string
}

func (d dead) Open(_ context.Context, v nodevolume.Volume) (*os.File, nodevolume.Found, error) {
	hangs := len(v.PodUID) > 4 && v.PodUID[:4] == "dead"
	if hangs {
		<-d.let
	}

	f, err := os.Open(d.file)
	if hangs {
		d.opened <- f
	}

	return f, nodevolume.Found{}, err
}

func newDead(t *testing.T) dead {
	t.Helper()

	file := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.WriteFile(file, nil, 0o600))

	return dead{let: make(chan struct{}), opened: make(chan *os.File, maxHung), file: file}
}

func volumeOf(pod string) node.Volume { return node.Volume{PodUID: types.UID(pod), Name: "data"} }

func TestAVolumeThatDoesNotAnswerHoldsNobodyUp(t *testing.T) {
	t.Parallel()

	d := newDead(t)
	clk := clocktesting.NewFakeClock(time.Now())
	v := newVolumes(d, clk)

	for i := range maxHung {
		failed := make(chan error)

		go func() {
			_, err := v.Open(t.Context(), volumeOf(fmt.Sprintf("dead-%d", i)))
			failed <- err
		}()

		require.Eventually(t, clk.HasWaiters, 10*time.Second, time.Millisecond)
		clk.Step(openTimeout)

		err := <-failed
		require.ErrorIs(t, err, node.ErrNotMounted)
		require.ErrorContains(t, err, "did not answer for 30s")

		_, err = v.Open(t.Context(), volumeOf(fmt.Sprintf("dead-%d", i)))
		require.ErrorContains(t, err, "still does not", "there is no second one for the same volume")
	}

	_, err := v.Open(t.Context(), volumeOf("live"))
	require.ErrorIs(t, err, node.ErrNotMounted)
	require.ErrorContains(t, err, "8 volumes of this node")

	close(d.let)

	for range maxHung {
		f := <-d.opened
		require.Eventually(t, func() bool { _, err := f.Stat(); return errors.Is(err, os.ErrClosed) }, 10*time.Second, time.Millisecond, "what comes too late is closed")
	}

	f, err := v.Open(t.Context(), volumeOf("live"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestAVolumeThatDoesNotAnswerDoesNotOutlastItsTask(t *testing.T) {
	t.Parallel()

	v := newVolumes(newDead(t), clocktesting.NewFakeClock(time.Now()))
	cause := errors.New("cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)

	_, err := v.Open(ctx, volumeOf("dead-1"))
	assert.ErrorIs(t, err, cause)
}
