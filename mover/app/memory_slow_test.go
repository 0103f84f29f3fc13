//go:build slow

package app

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// A volume that doesn't fit into a worker's memory is backed up by the next attempt, which has the memory of all.
func TestSlowAVolumeThatNeedsMoreThanAShareIsBackedUpAlone(t *testing.T) {
	const (
		mebi  = 1 << 20
		files = 250_000
	)

	b := newBench(t)
	volume := filepath.Join(b.dir, "volume")
	require.NoError(t, os.Mkdir(volume, 0o755))

	for i := range files {
		dir := filepath.Join(volume, fmt.Sprintf("folder-%03d", i/1000))
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%06d", i)), fmt.Appendf(nil, "line %d\n", i), 0o600))
	}

	// Younger files are read again, whatever was uploaded of them.
	select {
	case <-time.After(61 * time.Second):
	case <-t.Context().Done():
	}

	_, _, err := b.run(protocol.Request{Verb: protocol.VerbCreateRepository, Format: engine.FormatFast}, "", nil)
	require.NoError(t, err)

	backup := protocol.Request{Verb: protocol.VerbBackup, Backup: &engine.BackupRequest{Host: "h", Path: "/v", Instance: "i", Job: "job"}}
	all := []string{"DAC_OVERRIDE"}

	b.ceiling = 128 * mebi
	_, _, err = b.run(backup, volume, all)
	require.Error(t, err)
	assert.Equal(t, engine.CodeMemoryExceeded, engine.CodeOf(err), err)
	t.Log(err)

	b.ceiling, b.alone = 1024*mebi, true
	result, _, err := b.run(backup, volume, all)
	require.NoError(t, err)
	assert.Equal(t, int64(files), result.Backup.Summary.Files)
}
