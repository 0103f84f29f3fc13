package kopiaengine_test

import (
	"testing"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/enginetest"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
)

func TestKopiaKeepsThePromises(t *testing.T) {
	needRoot(t)

	enginetest.RunSuite(t, func(t *testing.T) engine.Engine {
		t.Helper()

		return kopiaengine.New(kopiaengine.Config{Repository: settings(t, store(t, t.TempDir()))})
	})
}
