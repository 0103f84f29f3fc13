//go:build slow

package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// Each capability of a worker is taken away alone, with a volume that holds all that a
// backup is to bring back. What fails then stands in the table of docs/security.md.
func TestEachCapabilityOfAWorkerIsNeeded(t *testing.T) {
	b := newBench(t, realWorker)
	volume := filepath.Join(b.dir, "volume")
	require.NoError(t, os.Mkdir(volume, 0o755))
	require.NoError(t, tree.Nasty(volume))

	_, _, err := b.run(protocol.Request{Verb: protocol.VerbCreateRepository, Format: engine.FormatFast}, "", nil)
	require.NoError(t, err, "making a repository takes no capability")

	backup := protocol.Request{Verb: protocol.VerbBackup, Backup: &engine.BackupRequest{Host: "h", Path: "/v", Instance: "i", Job: "job"}}
	restore := protocol.Request{Verb: protocol.VerbRestore, Restore: &engine.RestoreRequest{Job: "job"}}

	page, err := os.ReadFile("../../docs/security.md")
	require.NoError(t, err)

	for _, test := range []struct {
		request protocol.Request
		without string
		fails   string
	}{
		{backup, "", ""},
		{backup, "DAC_OVERRIDE", "list directory"},
		{restore, "", ""},
		{restore, "CHOWN", "set owner"},
		{restore, "DAC_OVERRIDE", "permission denied"},
		{restore, "FOWNER", "set mode"},
		{restore, "FSETID", "set mode"},
	} {
		t.Run(string(test.request.Verb)+" without "+test.without, func(t *testing.T) {
			b := *b
			b.t = t

			all := []string{"DAC_OVERRIDE"}
			if test.request.Restore != nil {
				all = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"}
			}

			at := volume
			if test.request.Restore != nil {
				// As provisioners make it for the application's user.
				at = t.TempDir()
				require.NoError(t, os.Chown(at, 1000, 1000))
				require.NoError(t, os.Chmod(at, 0o700))
			}

			_, fences, err := b.run(test.request, at, slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == test.without }))

			if test.fails == "" {
				require.NoError(t, err)
				assert.Equal(t, all, fences.Capabilities)
				assert.Empty(t, fences.Lacking)

				diff, err := tree.Compare(volume, at)
				require.NoError(t, err)
				assert.Empty(t, diff)

				return
			}

			require.ErrorContains(t, err, test.fails)
			assert.Equal(t, []string{test.without}, fences.Lacking)
			assert.Contains(t, string(page), fmt.Sprintf("| %s | %s | %s |\n", test.request.Verb, test.without, test.fails))
		})
	}
}
