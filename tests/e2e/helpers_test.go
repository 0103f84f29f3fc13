//go:build e2e

package e2e

import (
	"context"

	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
	"github.com/estiba-dev/estiba/tests/testkit/stock"
)

// createPod makes a pod that mounts volumes, all of them to be backed up.
func (c *cell) createPod(name string, claims, emptyDirs []string) {
	c.t.Helper()

	require.NoError(c.t, c.Create(c.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   c.namespace,
			Name:        name,
			Labels:      map[string]string{"app": "pod"},
			Annotations: map[string]string{contract.AnnotationBackupVolumes: "*"},
		},
		Spec: lab.PodSpec(claims, emptyDirs),
	}))
}

// createReplicas makes a StatefulSet whose pods have an emptyDir "scratch" each.
func (c *cell) createReplicas(name string, n int32) {
	c.t.Helper()

	labels := map[string]string{"app": name}
	require.NoError(c.t, c.Create(c.ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas:            &n,
			PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector:            &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{contract.AnnotationBackupVolumes: "scratch"}},
				Spec:       lab.PodSpec(nil, []string{"scratch"}),
			},
		},
	}))
}

// claimedVolume returns the UID of the volume that the claim "data" is bound to.
func claimedVolume(c *cell) string {
	c.t.Helper()

	var claim corev1.PersistentVolumeClaim
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.namespace, Name: "data"}, &claim))

	var volume corev1.PersistentVolume
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &volume))

	return string(volume.UID)
}

// snapshots returns the jobs of all snapshots of the cell's namespace, as the stock kopia sees them.
func (c *cell) snapshots() []string {
	c.t.Helper()

	var jobs []string

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(c.t, err)

	for _, r := range repositories {
		opened, err := stock.Open(c.ctx, c.Lab, r.Spec.BackupStorageLocation, r.Status.Path)
		require.NoError(c.t, err)

		manifests, err := opened.Snapshots(c.ctx)
		require.NoError(c.t, err)
		require.NoError(c.t, opened.Close(c.ctx))

		for _, m := range manifests {
			jobs = append(jobs, m.Tags["tag:"+contract.TagJob])
		}
	}

	return jobs
}

// waitGone waits until Velero's backup and all deletions of its snapshots are done.
func (c *cell) waitGone(backup string) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	require.NoError(c.t, c.Wait(ctx, "backup "+backup+" to be gone", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: backup}, &velerov1.Backup{})

		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
	require.NoError(c.t, c.Wait(ctx, "the snapshots of "+backup+" to be gone", func(ctx context.Context) (bool, error) {
		var list v1alpha1.SnapshotDeletionList
		if err := c.List(ctx, &list, client.InNamespace(c.Namespace)); err != nil {
			return false, err
		}

		found := 0

		for _, d := range list.Items {
			if d.Spec.Snapshot.Backup.Name != backup {
				continue
			}

			if d.Status.Phase != v1alpha1.PhaseCompleted {
				return false, nil
			}

			found++
		}

		return found > 0, nil
	}))
}
