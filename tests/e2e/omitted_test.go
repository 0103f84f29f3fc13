//go:build e2e

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// missed is what somebody could miss of the volume that odd makes, in one line.
const missed = `1 ExtendedAttributes ("attributed"), 1 FIFO ("fifo")`

// odd fills a volume with what can't be kept.
func odd(t *testing.T, dir string) {
	t.Helper()

	in := func(name string) string { return filepath.Join(dir, name) }

	for _, name := range []string{"plain", "linked", "attributed", "sparse"} {
		require.NoError(t, os.WriteFile(in(name), []byte(name), 0o600))
	}

	require.NoError(t, errors.Join(
		os.Link(in("linked"), in("another name")),
		unix.Setxattr(in("attributed"), "user.estiba", []byte("x"), 0),
		unix.Mkfifo(in("fifo"), 0o600),
		// The path is too long for an address to listen on.
		unix.Mknod(in("socket"), unix.S_IFSOCK|0o600, 0),
		os.Truncate(in("sparse"), 1<<20),
	))
}

// counts returns the omissions by their reasons.
func counts(list []v1alpha1.Omission) map[string]int64 {
	all := map[string]int64{}
	for _, o := range list {
		all[o.Reason] = o.Count
	}

	return all
}

func TestWhatCannotBeKeptIsSaidAtBackupAndAtRestore(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	require.NoError(t, c.Create(c.ctx, lab.Claim(c.namespace, "data", classDelete)))

	c.createPod("odd", []string{"data"}, nil)
	odd(t, c.volume(c.podAgain()))

	// Velero waits for a volume whose application is frozen, so that the job ends before the log
	// is closed.
	_, err := c.Run(c.ctx, "kubectl", "annotate", "pod", "odd", "-n", c.namespace,
		`pre.hook.backup.velero.io/command=["true"]`, `post.hook.backup.velero.io/command=["true"]`)
	require.NoError(t, err)

	b, err := c.Backup(c.ctx, c.namespace, "--include-namespaces", c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)
	assert.Positive(t, b.Status.Warnings)

	jobs, err := c.VolumeBackups(c.ctx, b.Name)
	require.NoError(t, err)
	require.Len(t, jobs, 1)

	all := map[string]int64{"ExtendedAttributes": 1, "FIFO": 1, "Holes": 1, "Socket": 1}
	job := &jobs[0]
	assert.Equal(t, all, counts(job.Status.Summary.Omissions))
	assert.True(t, meta.IsStatusConditionFalse(job.Status.Conditions, v1alpha1.ConditionNothingOmitted))

	logs, err := c.Velero(c.ctx, "backup", "logs", b.Name)
	require.NoError(t, err)

	warning := c.onlyLine(logs, "not kept: 1 ExtendedAttributes")
	assert.Contains(t, warning, "level=warning")
	assert.Contains(t, warning, "1 FIFO")

	describe, err := c.Velero(c.ctx, "backup", "describe", b.Name, "--details")
	require.NoError(t, err)
	assert.Contains(t, describe, "not kept: "+missed)

	// Another cluster has the bucket alone.
	require.NoError(t, c.Delete(c.ctx, job))
	c.deleteNamespace()
	c.restore(b.Name, b.Name)

	volume := c.volume(c.podAgain())
	content, err := os.ReadFile(filepath.Join(volume, "another name"))
	require.NoError(t, err)
	assert.Equal(t, "linked", string(content))

	one, err := os.Stat(filepath.Join(volume, "linked"))
	require.NoError(t, err)
	two, err := os.Stat(filepath.Join(volume, "another name"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(one, two), "two names of one file")

	restored := c.jobOf(b.Name, "data")
	assert.Equal(t, all, counts(restored.Status.Summary.Omissions))

	c.event(c.namespace, "PersistentVolumeClaim", "data", "Omissions")

	describe, err = c.Velero(c.ctx, "restore", "describe", b.Name, "--details")
	require.NoError(t, err)
	assert.Contains(t, describe, "not restored: "+missed)
}

// onlyLine returns the one line that holds the text.
func (c *cell) onlyLine(text, holds string) string {
	c.t.Helper()

	var found []string

	for line := range strings.Lines(text) {
		if strings.Contains(line, holds) {
			found = append(found, line)
		}
	}

	require.Len(c.t, found, 1, "%s in:\n%s", holds, text)

	return found[0]
}
