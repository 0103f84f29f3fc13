package enginetest

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
)

func keepsData(t *testing.T, e engine.Engine) {
	created(t, e)

	source := sample(t, "content")
	backedUp(t, e, source, "vb-1")

	for name, test := range map[string]struct {
		request engine.RestoreRequest
		filled  bool
		kept    bool
		code    engine.Code
	}{
		"data of its own":                      {engine.RestoreRequest{Job: "vb-1", Owned: true}, true, true, ""},
		"data of its own, and no snapshot":     {engine.RestoreRequest{Job: "vb-gone", Owned: true}, true, true, ""},
		"data that a restore may have left":    {engine.RestoreRequest{Job: "vb-1"}, true, false, engine.CodeTargetNotEmpty},
		"data that the job itself has written": {engine.RestoreRequest{Job: "vb-1", Owned: true, Resumed: true}, true, false, ""},
		"an empty volume":                      {engine.RestoreRequest{Job: "vb-1", Owned: true}, false, false, ""},
		"an empty volume that isn't its own":   {engine.RestoreRequest{Job: "vb-1"}, false, false, ""},
		"an empty volume, and no snapshot":     {engine.RestoreRequest{Job: "vb-gone", Owned: true}, false, false, engine.CodeSnapshotNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			target := t.TempDir()
			if test.filled {
				put(t, filepath.Join(target, "mine"), "newer")
			}

			before := copied(t, target)

			test.request.Root, test.request.Existing = open(t, target), engine.ExistingKeep

			res, err := e.Restore(t.Context(), test.request, nil)
			if test.code != "" {
				requireCode(t, test.code, err)
				assert.Equal(t, before, copied(t, target))

				return
			}

			require.NoError(t, err)
			assert.Equal(t, test.kept, len(res.Kept) > 0)

			if test.kept {
				assert.Empty(t, res.SnapshotID)
				assert.Equal(t, before, copied(t, target))

				return
			}

			for name := range copied(t, source) {
				assert.Contains(t, copied(t, target), name)
			}
		})
	}
}
