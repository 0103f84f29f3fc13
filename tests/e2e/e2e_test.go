//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

const (
	classDelete = "standard"
	classRetain = "standard-retain"
	// patience bounds one wait. It is far beyond what any step takes, and there
	// only so that a hang ends with a message.
	patience = 4 * time.Minute
)

// cell is what one test has of the lab: a namespace of its own, cleaned up when it ends.
type cell struct {
	*lab.Lab
	t         *testing.T
	ctx       context.Context
	namespace string
	temp      string
}

func open(t *testing.T) *cell {
	t.Helper()

	l, err := lab.Open()
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	name := "e2e-" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	name = name[:min(len(name), 40)] + fmt.Sprintf("-%x", time.Now().UnixNano()&0xffffff)
	c := &cell{Lab: l, t: t, ctx: ctx, namespace: name, temp: t.TempDir()}

	t.Cleanup(func() {
		defer cancel()

		if t.Failed() {
			c.report()
		}

		cleanup, done := context.WithTimeout(context.Background(), patience)
		defer done()

		if err := l.DeleteNamespace(cleanup, c.namespace); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})

	return c
}

// report prints what a person would look at first.
func (c *cell) report() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "volumebackups,volumerestores,snapshotdeletions,repositories.estiba.dev", "-n", c.Namespace, "-o", "wide"},
		{"get", "events", "-n", c.namespace, "--sort-by=.lastTimestamp"},
		{"logs", "-n", c.Namespace, "-l", "app.kubernetes.io/component=estiba-node", "--tail=60"},
		{"logs", "-n", c.Namespace, "-l", "app.kubernetes.io/component=estiba-controller", "--tail=60"},
	} {
		out, err := c.Run(ctx, "kubectl", args...)
		c.t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// app deploys the demo's application and fills its volumes.
func (c *cell) app(class string, d lab.Data) (*lab.App, *corev1.Pod) {
	c.t.Helper()

	a := &lab.App{Lab: c.Lab, Namespace: c.namespace, Class: class}
	pod, err := a.Deploy(c.ctx)
	require.NoError(c.t, err)

	for name, dir := range c.volumes(a, pod) {
		d.Seed += uint64(len(name))
		require.NoError(c.t, lab.FillVolume(dir, d))
	}

	return a, pod
}

func (c *cell) volumes(a *lab.App, pod *corev1.Pod) map[string]string {
	c.t.Helper()

	dirs, err := a.Volumes(c.ctx, pod)
	require.NoError(c.t, err)

	return dirs
}

// keep copies the pod's volumes for a later comparison.
func (c *cell) keep(a *lab.App, pod *corev1.Pod) map[string]string {
	c.t.Helper()

	return c.keepAt(a, pod, "kept")
}

func (c *cell) keepAt(a *lab.App, pod *corev1.Pod, place string) map[string]string {
	c.t.Helper()

	kept := map[string]string{}
	for name, dir := range c.volumes(a, pod) {
		kept[name] = filepath.Join(c.temp, place, name)
		require.NoError(c.t, os.MkdirAll(filepath.Dir(kept[name]), 0o700))
		require.NoError(c.t, c.Keep(c.ctx, dir, kept[name]))
	}

	return kept
}

// same requires the pod's volumes to be what was kept, to the last attribute.
func (c *cell) same(kept map[string]string, a *lab.App, pod *corev1.Pod) {
	c.t.Helper()

	for name, dir := range c.volumes(a, pod) {
		c.sameDir(kept[name], dir)
	}
}

func (c *cell) sameDir(want, got string) {
	c.t.Helper()

	diff, err := c.Differences(c.ctx, want, got)
	require.NoError(c.t, err)
	require.Empty(c.t, diff, "rsync sees differences between what was backed up and what was restored")

	wantSum, n, err := lab.Digest(want)
	require.NoError(c.t, err)
	require.NotZero(c.t, n)

	gotSum, _, err := lab.Digest(got)
	require.NoError(c.t, err)
	require.Equal(c.t, wantSum, gotSum)
}

func (c *cell) backup(name string, args ...string) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	b, err := c.Backup(ctx, name, append([]string{"--include-namespaces", c.namespace}, args...)...)
	require.NoError(c.t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)
}

func (c *cell) requireBackup(b *velerov1.Backup, phase velerov1.BackupPhase) {
	c.t.Helper()

	if b.Status.Phase != phase {
		logs, _ := c.Velero(c.ctx, "backup", "logs", b.Name)
		describe, _ := c.Velero(c.ctx, "backup", "describe", b.Name, "--details")
		c.t.Fatalf("backup %s is %s, expected %s\n%s\n%s", b.Name, b.Status.Phase, phase, describe, logs)
	}
}

func (c *cell) restore(name, backup string, args ...string) {
	c.t.Helper()
	require.NoError(c.t, c.Restore(c.ctx, name, backup, args...))
	c.restored(name)
}

func (c *cell) restored(name string) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	r, err := c.WaitRestore(ctx, name)
	require.NoError(c.t, err)

	if r.Status.Phase != velerov1.RestorePhaseCompleted {
		logs, _ := c.Velero(c.ctx, "restore", "logs", name)
		describe, _ := c.Velero(c.ctx, "restore", "describe", name, "--details")
		c.t.Fatalf("restore %s is %s\n%s\n%s", name, r.Status.Phase, describe, logs)
	}
}

func (c *cell) deleteNamespace() {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	require.NoError(c.t, c.DeleteNamespace(ctx, c.namespace))
}

func (c *cell) pod(a *lab.App) *corev1.Pod {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	pod, err := a.Pod(ctx)
	require.NoError(c.t, err)

	return pod
}

// completed requires n jobs of the backup, all completed and with nothing left out.
func (c *cell) completed(backup string, n int) []v1alpha1.VolumeBackup {
	c.t.Helper()

	jobs, err := c.VolumeBackups(c.ctx, backup)
	require.NoError(c.t, err)
	require.Len(c.t, jobs, n)

	for _, job := range jobs {
		require.Equal(c.t, v1alpha1.PhaseCompleted, job.Status.Phase, job.Status.Message)
		require.NotEmpty(c.t, job.Status.SnapshotID)
		require.Empty(c.t, job.Status.Summary.Omissions)
	}

	return jobs
}
