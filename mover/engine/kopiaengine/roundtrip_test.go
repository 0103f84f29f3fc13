package kopiaengine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

func TestANastyTreeComesBackAsItWas(t *testing.T) {
	needRoot(t)

	volume, target := t.TempDir(), t.TempDir()
	require.NoError(t, tree.Nasty(volume))

	e := newEngine(t, store(t, t.TempDir()))
	saved, err := e.Backup(t.Context(), request(t, volume, "vb-1"), nil)
	require.NoError(t, err)

	res := restore(t, e, "vb-1", target)

	requireSame(t, volume, target)
	assert.Equal(t, saved.SnapshotID, res.SnapshotID)
	assert.Equal(t, saved.Summary.Files, res.Summary.Files)
	assert.Equal(t, saved.Summary.Directories, res.Summary.Directories)
	assert.Equal(t, saved.Summary.Symlinks, res.Summary.Symlinks)
	assert.Equal(t, saved.Summary.Bytes, res.Summary.Bytes)
	assert.Empty(t, saved.Summary.Omissions)
	assert.Positive(t, saved.Summary.StoredBytes)
}
