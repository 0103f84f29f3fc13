package app

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

func TestHowLongTheKernelKeepsWhatItHasToWrite(t *testing.T) {
	for name, test := range map[string]struct {
		expire, every string
		want          time.Duration
		says          string
	}{
		"as it comes":              {"3000\n", "500\n", 35 * time.Second, ""},
		"a laptop's":               {"60000", "60000", 20 * time.Minute, ""},
		"written back on demand":   {"3000", "0", never, ""},
		"no number":                {"soon", "500", 0, "dirty_expire_centisecs"},
		"a number below all sense": {"3000", "-1", 0, "dirty_writeback_centisecs"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "dirty_expire_centisecs"), []byte(test.expire), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "dirty_writeback_centisecs"), []byte(test.every), 0o600))

			got, err := writeBack(dir)
			assert.Equal(t, test.want, got)

			if test.says != "" {
				assert.ErrorContains(t, err, test.says)
			}
		})
	}

	_, err := writeBack(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)

	here, err := writeBack(virtualMemory)
	require.NoError(t, err)
	assert.Positive(t, here)
}

func TestABackupIsToldHowLongTheKernelKeepsWhatItHasToWrite(t *testing.T) {
	r, changes := newRegistry(t, true, func(_ context.Context, w runner.Task, _ runner.Watch) (protocol.Result, error) {
		here, err := writeBack(virtualMemory)
		if err == nil && w.Request.Backup.WriteBack != here {
			err = engine.Errorf(engine.CodeInternal, "it is told %s, and the kernel says %s", w.Request.Backup.WriteBack, here)
		}

		return protocol.Result{Backup: &engine.BackupResult{SnapshotID: "k1"}}, err
	})

	request := &engine.BackupRequest{Job: "vb-1"}
	r.Begin("k", task.Work{Backup: request, Repository: restoreWork().Repository})

	assert.Nil(t, until(t, r, changes, ended).Failure)
	assert.Zero(t, request.WriteBack, "who asked keeps the request as it was")
}
