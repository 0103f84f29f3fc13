//go:build slow

package kopiaengine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

func TestSlowAFileSystemThatTakesFewerNamesGetsCopiesAndThatIsCounted(t *testing.T) {
	volume, target := loopMount(t, "xfs", 300), loopMount(t, "ext4", 64)

	const names = 65_001 // One more than ext4 can give a file.

	require.NoError(t, os.WriteFile(filepath.Join(volume, "0"), []byte("content"), 0o600))

	for i := 1; i < names; i++ {
		require.NoError(t, os.Link(filepath.Join(volume, "0"), filepath.Join(volume, fmt.Sprint(i))))
	}

	e := newEngine(t, store(t, t.TempDir()))
	assert.Empty(t, backup(t, e, volume, "vb-1").Summary.Omissions)

	res, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
	require.NoError(t, err)
	require.Len(t, res.Summary.Omissions, 1)
	assert.Equal(t, engine.OmittedHardLink, res.Summary.Omissions[0].Reason)
	assert.EqualValues(t, 1, res.Summary.Omissions[0].Count)
	requireSame(t, volume, target, withoutLostAndFound(), tree.Without(tree.HardLinks))
}
