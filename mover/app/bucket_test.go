package app

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/estiba-dev/estiba/mover/engine"
)

func TestAStoreThatHangsIsNotWaitedForByEverybody(t *testing.T) {
	t.Parallel()

	now := testingclock.NewFakeClock(time.Now())
	a := newAway(now)
	asked := 0
	fail := func(took time.Duration, err error) func() error {
		return func() error {
			asked++
			now.Step(took)

			return err
		}
	}

	require.Error(t, a.ask("dead", fail(15*time.Second, engine.Errorf(engine.CodeStoreStalled, "no byte moved"))))
	now.Step(20 * time.Second)

	err := a.ask("dead", fail(0, nil))
	require.ErrorContains(t, err, "failed 20s ago and is asked again in 40s: no byte moved")
	assert.Equal(t, engine.CodeStoreStalled, engine.CodeOf(err))
	assert.Equal(t, 1, asked)

	require.NoError(t, a.ask("alive", fail(0, nil)), "another location is not kept waiting")
	now.Step(40 * time.Second)
	require.NoError(t, a.ask("dead", fail(0, nil)), "it is given another chance")
	require.Error(t, a.ask("dead", fail(0, engine.Errorf(engine.CodeStoreUnavailable, "refused"))))
	require.NoError(t, a.ask("dead", fail(0, nil)), "what fails at once keeps nobody waiting")

	require.Error(t, a.ask("forbidden", fail(time.Minute, engine.Errorf(engine.CodeCredentialsInvalid, "no"))))
	require.NoError(t, a.ask("forbidden", fail(0, nil)), "a store that answers is there")

	require.Error(t, a.ask("empty", fail(time.Minute, errors.New("not found"))))
	require.NoError(t, a.ask("empty", fail(0, nil)))
	assert.Equal(t, 9, asked)
}
