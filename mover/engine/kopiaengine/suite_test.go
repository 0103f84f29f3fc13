package kopiaengine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/enginetest"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/prepared"
)

func TestKopiaKeepsThePromises(t *testing.T) {
	needRoot(t)

	on := func(s repository.Settings) engine.Engine {
		return kopiaengine.New(kopiaengine.Config{Repository: s})
	}

	enginetest.RunSuite(t, func(t *testing.T) engine.Engine {
		t.Helper()

		return on(settings(t, store(t, t.TempDir())))
	}, func(t *testing.T) engine.Engine {
		t.Helper()

		s := settings(t, store(t, t.TempDir()))
		require.NoError(t, prepared.Repository(t.Context(), s.Storage, s.Password))

		return on(s)
	})
}
