package runner_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

func TestATaskThatIsStoppedWhileItsVolumeIsOpenedWasCancelled(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancelCause(t.Context())
	job := task(t, protocol.VerbBackup, workertest.Succeed)
	job.OpenVolume = func(ctx context.Context) (*os.File, error) {
		cancel(runner.ErrCanceled)
		<-ctx.Done()

		return nil, fmt.Errorf("open: %w", ctx.Err())
	}

	_, err := runner.New(runner.Config{Executable: "/nowhere"}).Run(ctx, job, runner.Watch{})
	require.ErrorIs(t, err, runner.ErrCanceled)
	assert.Equal(t, engine.CodeCanceled, engine.CodeOf(err))
}
