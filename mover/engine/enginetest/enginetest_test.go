package enginetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/enginetest"
)

func TestMemoryKeepsThePromises(t *testing.T) {
	memory := func(*testing.T) engine.Engine { return enginetest.NewMemory(time.Now) }
	enginetest.RunSuite(t, memory, memory)
}

func TestFaultyFailsTheCallItIsToldTo(t *testing.T) {
	cause := errors.New("told to")
	f := enginetest.NewFaulty(enginetest.NewMemory(time.Now), enginetest.FailAt(enginetest.Snapshots, 2, cause))

	require.NoError(t, f.CreateRepository(t.Context(), engine.FormatFast))

	_, err := f.Snapshots(t.Context())
	require.NoError(t, err)

	_, err = f.Snapshots(t.Context())
	require.ErrorIs(t, err, cause)

	_, err = f.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 3, f.Calls(enginetest.Snapshots))
}

func TestFaultyHangsUntilItIsCancelled(t *testing.T) {
	f := enginetest.NewFaulty(enginetest.NewMemory(time.Now), enginetest.HangAt(enginetest.Forget, 1))

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)

	go func() {
		_, err := f.Forget(ctx, engine.ForgetRequest{Job: "vb-1"})
		done <- err
	}()

	cancel()
	assert.Equal(t, engine.CodeCanceled, engine.CodeOf(<-done))
}
