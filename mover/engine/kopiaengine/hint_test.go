package kopiaengine_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

// What is left of a restore that failed at one file is in the way of the next one.
func TestWhatAFailedRestoreSaysIsAllThatTheNextOneNeeds(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 20, 1000)

	last := make([]byte, 30<<20)
	_, err := rand.Read(last)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(volume, "zz"), last, 0o600))

	st := &noisy{Storage: store(t, t.TempDir())}
	s := settings(t, st)
	e := newEngineWith(t, s)
	pack, at := contentOf(t, s, backup(t, e, volume, "vb-1").SnapshotID, "zz")
	st.rotten = map[blob.ID]int64{pack: at}

	for _, existing := range []engine.ExistingData{engine.ExistingOverwrite, engine.ExistingMirror} {
		target := t.TempDir()
		r := engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Parallel: 1}
		_, err := e.Restore(t.Context(), r, nil)
		requireCode(t, engine.CodeRepositoryDamaged, err)

		_, said, found := strings.Cut(err.Error(), "; to restore all others, ")
		require.True(t, found, err)
		assert.Contains(t, said, contract.AnnotationOnFileError+"="+string(engine.FileErrorSkip))
		assert.Regexp(t, contract.AnnotationExistingData+"=(overwrite .* or )?"+string(existing), said)
		assert.Less(t, len(said), 256)

		r.OnFileError = engine.FileErrorSkip
		_, err = e.Restore(t.Context(), r, nil)
		requireCode(t, engine.CodeTargetNotEmpty, err)

		r.Existing = existing
		res, err := e.Restore(t.Context(), r, nil)
		require.NoError(t, err)
		assert.EqualValues(t, 1, res.LeftOut)
	}
}
