//go:build e2e && slow

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// Velero's own file-system backup runs beside Estiba, with its node-agent, and both are asked for the same volumes.
// A mere default yields to it; what names Estiba is moved, with a warning. Nothing is restored over by it.
func TestSlowVelerosFileSystemBackupRunsBesideEstiba(t *testing.T) {
	c := open(t)
	c.nodeAgent()
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))

	for _, name := range []string{"plain", "other"} {
		c.create(lab.Claim(c.namespace, name, classDelete))
	}

	c.createPod("web", []string{"plain", "other"}, []string{"cache"})
	pod := c.podAgain()
	kept := map[string]string{}

	for _, name := range []string{"plain", "other", "cache"} {
		dir, err := c.VolumeDir(c.ctx, pod, name)
		require.NoError(t, err)
		// Nothing of what the other tests have: Velero's own fails as soon as a file is named like x.kopia-entry.
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("of "+name), 0o600))
		kept[name] = filepath.Join(c.temp, name)
		require.NoError(t, c.Keep(c.ctx, dir, kept[name]))
	}

	const all = "cache other plain"

	optOut := contract.AnnotationDefaultVolumes + "=opt-out"

	c.annotate(pod, contract.AnnotationBackupVolumes, "")
	logs := c.shares(c.namespace+"-default", all, "", "--default-volumes-to-fs-backup", "--annotations", optOut)
	assert.Contains(t, logs, "volume plain: left to")
	assert.Contains(t, logs, "LeftToFileSystemBackup")

	c.annotate(pod, "backup.velero.io/backup-volumes", "other")
	logs = c.shares(c.namespace+"-opt", "other", "cache plain", "--annotations", optOut)
	assert.Contains(t, logs, "volume other: left to")

	c.annotate(pod, contract.AnnotationBackupVolumes, "plain,cache")
	logs = c.shares(c.namespace, all, "cache plain", "--default-volumes-to-fs-backup")
	assert.Contains(t, logs, "Velero's own file-system backup takes it, too: it is moved twice")

	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)

	pod = c.podAgain()
	assert.Equal(t, contract.GateContainer, pod.Spec.InitContainers[0].Name, "Velero's own waits behind ours, so that we find the volumes empty")

	for name, want := range kept {
		dir, err := c.VolumeDir(c.ctx, pod, name)
		require.NoError(t, err)

		// Velero's own leaves a folder .velero, and not all times.
		missing, err := c.Run(c.ctx, "rsync", "-nirlc", want+"/", dir+"/")
		require.NoError(t, err)
		assert.Empty(t, missing)
	}
}

// nodeAgent wants Velero's node-agent, and removes it when the test ends: the other tests run without.
func (c *cell) nodeAgent() {
	c.t.Helper()

	set := &appsv1.DaemonSet{}
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: "node-agent"}, set),
		"this test wants Velero's node-agent: make cluster-up CLUSTER_FLAGS=--fsb")
	c.t.Cleanup(func() {
		assert.NoError(c.t, c.Delete(context.Background(), set, client.PropagationPolicy("Foreground")))
	})

	_, err := c.ReadyPods(c.ctx, c.Namespace, map[string]string{"name": "node-agent"}, int(set.Status.DesiredNumberScheduled))
	require.NoError(c.t, err)
}

func (c *cell) annotate(pod *corev1.Pod, key, value string) {
	c.t.Helper()

	change := key + "=" + value
	if value == "" {
		change = key + "-"
	}

	_, err := c.Run(c.ctx, "kubectl", "annotate", "--overwrite", "--namespace="+pod.Namespace, "pod", pod.Name, change)
	require.NoError(c.t, err)
}

// shares takes a backup that must be complete, of which Velero's own file-system backup takes some volumes and Estiba
// takes some. It gives the log.
func (c *cell) shares(backup, cores, ours string, args ...string) string {
	c.t.Helper()
	c.backup(backup, args...)

	var list velerov1.PodVolumeBackupList
	require.NoError(c.t, c.List(c.ctx, &list, client.InNamespace(c.Namespace), client.MatchingLabels{velerov1.BackupNameLabel: backup}))

	var theirs, mine []string
	for i := range list.Items {
		theirs = append(theirs, list.Items[i].Spec.Volume)
	}

	jobs, err := c.VolumeBackups(c.ctx, backup)
	require.NoError(c.t, err)

	for i := range jobs {
		mine = append(mine, jobs[i].Spec.Volume.Name)
	}

	slices.Sort(theirs)
	slices.Sort(mine)
	assert.Equal(c.t, cores, strings.Join(theirs, " "), "PodVolumeBackups")
	assert.Equal(c.t, ours, strings.Join(mine, " "), "VolumeBackups")

	logs, err := c.Velero(c.ctx, "backup", "logs", backup)
	require.NoError(c.t, err)

	return logs
}
