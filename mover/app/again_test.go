package app

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

const mebi = 1 << 20

// A worker that is ended for want of memory leaves what it has, and the next one reads the rest only.
func TestABackupThatTookTooMuchMemoryGoesOnWhereItWas(t *testing.T) {
	const (
		files = 70
		size  = 2 * mebi
	)

	shared := newBench(t, greedyWorker)
	shared.ceiling = 1024 * mebi
	shared.alone = true // While that one file waits for the daemon, no other is read.

	_, _, err := shared.run(protocol.Request{Verb: protocol.VerbCreateRepository, Format: engine.FormatFast}, "", nil)
	require.NoError(t, err)

	for job, how := range map[string]string{"told in time": "wind up", "killed after a checkpoint": "die"} {
		t.Run(job, func(t *testing.T) {
			b := *shared
			b.t = t

			volume, target := t.TempDir(), t.TempDir()
			writeRandom(t, volume, how, files, size)

			backup := protocol.Request{Verb: protocol.VerbBackup, Backup: &engine.BackupRequest{Host: "h", Path: "/v", Instance: job, Job: job, Description: how}}
			_, _, err := b.run(backup, volume, []string{"DAC_OVERRIDE"})
			require.Error(t, err)
			require.Equal(t, engine.CodeMemoryExceeded, engine.CodeOf(err), err)

			backup.Backup.Description = ""
			result, _, err := b.run(backup, volume, []string{"DAC_OVERRIDE"})
			require.NoError(t, err)

			s := result.Backup.Summary
			assert.True(t, result.Backup.Incremental)
			assert.Equal(t, int64(files*size), s.Bytes)
			assert.LessOrEqual(t, s.ReadBytes, s.Bytes-20*mebi, "what the first one had written is not read again")
			t.Logf("%d of %d MiB were read again", s.ReadBytes/mebi, s.Bytes/mebi)

			_, _, err = b.run(protocol.Request{Verb: protocol.VerbRestore, Restore: &engine.RestoreRequest{Job: job}}, target,
				[]string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"})
			require.NoError(t, err)

			diff, err := tree.Compare(volume, target)
			require.NoError(t, err)
			assert.Empty(t, diff)
		})
	}
}

// writeRandom fills a folder with files that can't be compressed, other ones for each seed.
func writeRandom(t *testing.T, dir, seed string, files, size int) {
	t.Helper()

	random := rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%32s", seed)))
	data := make([]byte, size)

	for i := range files {
		_, err := random.Read(data)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data, 0o600))
	}
}
