//go:build e2e && slow

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// Velero itself has no object store of that provider, so that the jobs of its backup and its restore are made by hand.
// Nothing is deleted: the controller, which is not root, can't read the folders that the daemons make.
func TestSlowALocationThatIsAFolderHoldsARepository(t *testing.T) {
	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	kept := c.filled("data", lab.Data{Files: 200, Bytes: 8 << 20, Seed: 94})
	folder := c.folder()

	location := &velerov1.BackupStorageLocation{Spec: velerov1.BackupStorageLocationSpec{Provider: "filesystem", Config: map[string]string{"path": folder}}}
	location.Namespace, location.Name = c.Namespace, c.namespace
	location.Spec.ObjectStorage = &velerov1.ObjectStorageLocation{Bucket: "none"}
	c.create(location)
	c.create(jobs.NewRepository(c.Namespace, location.Name, c.namespace))
	c.repository(c.namespace, "RepositoryReady")

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, repositories, 1)

	repository := v1alpha1.RepositoryReference{BackupStorageLocation: location.Name, Namespace: c.namespace, ID: repositories[0].Status.ID}

	claim := &corev1.PersistentVolumeClaim{}
	require.NoError(t, c.Get(c.ctx, client.ObjectKey{Namespace: c.namespace, Name: "data"}, claim))

	owner := c.owner(&velerov1.Backup{
		Spec:   velerov1.BackupSpec{StorageLocation: location.Name, IncludedNamespaces: []string{c.namespace}},
		Status: velerov1.BackupStatus{Phase: velerov1.BackupPhaseInProgress},
	})
	backup := jobs.NewBackup(c.Namespace, "", v1alpha1.VolumeBackupSpec{
		Backup: v1alpha1.OwnerReference{Name: owner.Name, UID: owner.UID}, Repository: repository,
		Volume: v1alpha1.VolumeReference{
			Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: c.namespace,
			Claim: &v1alpha1.ClaimReference{Name: claim.Name, UID: claim.UID, PersistentVolume: claim.Spec.VolumeName},
		},
		Source:      v1alpha1.SourceIdentity{Path: "/persistentvolumeclaim/data", Instance: "pvc/" + string(claim.UID)},
		RequestedBy: v1alpha1.RequestedByClaim,
	})
	c.create(backup)
	c.done(backup, func() v1alpha1.JobStatus { return backup.Status.JobStatus })

	assert.DirExists(t, filepath.Join(folder, repositories[0].Status.Path))

	snapshot := v1alpha1.SnapshotReference{Job: backup.Name, Backup: backup.Spec.Backup}

	owner = c.owner(&velerov1.Restore{
		Spec:   velerov1.RestoreSpec{BackupName: owner.Name},
		Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseCompleted},
	})
	c.create(lab.Claim(c.namespace, "again", classDelete))

	restore := jobs.NewRestore(c.Namespace, v1alpha1.VolumeRestoreSpec{
		Restore: v1alpha1.OwnerReference{Name: owner.Name, UID: owner.UID}, Repository: repository, Snapshot: snapshot,
		Target: v1alpha1.VolumeReference{
			Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: c.namespace, Claim: &v1alpha1.ClaimReference{Name: "again"},
		},
	})
	c.create(restore)
	c.done(restore, func() v1alpha1.JobStatus { return restore.Status.JobStatus })
	c.unstaged()
	c.through("again", func(dir string) { c.sameDir(kept, dir) })
}

// done waits until the job is completed.
func (c *cell) done(job client.Object, status func() v1alpha1.JobStatus) {
	c.t.Helper()
	c.eventually("job "+job.GetName()+" to be completed", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(job), job)
		require.NotContains(c.t, []v1alpha1.Phase{v1alpha1.PhaseFailed, v1alpha1.PhaseCanceled}, status().Phase, "%s: %s", status().Reason, status().Message)

		return status().Phase == v1alpha1.PhaseCompleted, err
	})
}

// folder returns a folder that the daemons and the controller see under that path, as an administrator would mount one
// of a file server for both.
func (c *cell) folder() string {
	c.t.Helper()

	dir := filepath.Join(lab.SharedDir(), c.namespace+"-store")
	require.NoError(c.t, os.MkdirAll(dir, 0o777))
	// Whatever the umask is: the controller is not root.
	require.NoError(c.t, os.Chmod(dir, 0o777))

	mount := func(s *corev1.PodSpec) {
		s.Volumes = append(s.Volumes, corev1.Volume{Name: "store", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}})
		s.Containers[0].VolumeMounts = append(s.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "store", MountPath: dir})
	}
	unmount := func(s *corev1.PodSpec) {
		s.Volumes, s.Containers[0].VolumeMounts = s.Volumes[:len(s.Volumes)-1], s.Containers[0].VolumeMounts[:len(s.Containers[0].VolumeMounts)-1]
	}

	c.t.Cleanup(func() {
		c.controllerAs(unmount)
		c.change(unmount)
		assert.NoError(c.t, os.RemoveAll(dir))
	})
	c.controllerAs(mount)
	c.change(mount)

	return dir
}

// controllerAs runs the controller otherwise.
func (c *cell) controllerAs(edit func(*corev1.PodSpec)) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: "estiba-controller"}}
	require.NoError(c.t, c.Get(ctx, client.ObjectKeyFromObject(d), d))

	before := d.DeepCopy()
	edit(&d.Spec.Template.Spec)
	require.NoError(c.t, c.Patch(ctx, d, client.MergeFrom(before)))

	_, err := c.Run(ctx, "kubectl", "rollout", "status", "--namespace="+c.Namespace, "deployment/estiba-controller")
	require.NoError(c.t, err)
}
