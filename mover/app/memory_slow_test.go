//go:build slow

package app

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// manySmallFiles is how many files the volumes of these tests have.
const manySmallFiles = 250_000

// smallFiles makes a volume of small files, so many in a folder.
func smallFiles(t *testing.T, perFolder int) string {
	t.Helper()

	volume := t.TempDir()

	for i := range manySmallFiles {
		dir := filepath.Join(volume, fmt.Sprintf("folder-%03d", i/perFolder))
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%06d", i)), fmt.Appendf(nil, "line %d\n", i), 0o600))
	}

	return volume
}

// How much memory a volume takes goes by its largest folder, and not by how many files it has.
func TestSlowAVolumeOfManySmallFilesFitsIntoTheLeastMemory(t *testing.T) {
	b := newBench(t, realWorker)
	volume := smallFiles(t, 1000)

	_, _, err := b.run(protocol.Request{Verb: protocol.VerbCreateRepository, Format: engine.FormatFast}, "", nil)
	require.NoError(t, err)

	b.ceiling = 128 << 20
	result, _, err := b.run(aBackup(), volume, []string{"DAC_OVERRIDE"})
	require.NoError(t, err)
	assert.Equal(t, int64(manySmallFiles), result.Backup.Summary.Files)
}

// A volume that doesn't fit into a worker's memory is backed up by the next attempt, which has the memory of all.
func TestSlowAVolumeThatNeedsMoreThanAShareIsBackedUpAlone(t *testing.T) {
	b := newBench(t, realWorker)
	volume := smallFiles(t, manySmallFiles)

	_, _, err := b.run(protocol.Request{Verb: protocol.VerbCreateRepository, Format: engine.FormatFast}, "", nil)
	require.NoError(t, err)

	b.ceiling = 128 << 20
	_, _, err = b.run(aBackup(), volume, []string{"DAC_OVERRIDE"})
	require.Error(t, err)
	assert.Equal(t, engine.CodeMemoryExceeded, engine.CodeOf(err), err)
	t.Log(err)

	b.ceiling, b.alone = 1<<30, true
	result, _, err := b.run(aBackup(), volume, []string{"DAC_OVERRIDE"})
	require.NoError(t, err)
	assert.Equal(t, int64(manySmallFiles), result.Backup.Summary.Files)
}

func aBackup() protocol.Request {
	return protocol.Request{Verb: protocol.VerbBackup, Backup: &engine.BackupRequest{Host: "h", Path: "/v", Instance: "i", Job: "job"}}
}
