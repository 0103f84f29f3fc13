//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// An administrator can make jobs by hand. Whatever is wrong with one, it fails
// within its bound and says which object, which field, and what to do.
func TestAJobThatDoesNotFitFailsByName(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.app(classDelete, lab.Data{Files: 5, Bytes: 1 << 14, Seed: 30})
	c.backup(c.namespace)
	good := c.goodBackup()

	tests := map[string]struct {
		forge  func(j *v1alpha1.VolumeBackup)
		reason string
		names  []string
	}{
		"nothing wrong": {func(*v1alpha1.VolumeBackup) {}, "Completed", nil},
		"no node, for the controller to find it": {func(j *v1alpha1.VolumeBackup) {
			delete(j.Labels, contract.LabelNode)
		}, "Completed", nil},
		// A claim is read through another of its pods where the one that the job names is gone.
		"a pod that does not exist": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Pod.Name = "nobody"
		}, "Completed", nil},
		"a pod that does not exist, and no node": {func(j *v1alpha1.VolumeBackup) {
			delete(j.Labels, contract.LabelNode)
			j.Spec.Volume.Pod.Name = "nobody"
		}, "Completed", nil},
		"a pod's predecessor": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Pod.UID = "a-pod-of-before"
		}, "Completed", nil},
		"a pod's predecessor, and no node": {func(j *v1alpha1.VolumeBackup) {
			delete(j.Labels, contract.LabelNode)
			j.Spec.Volume.Pod.UID = "a-pod-of-before"
		}, "Completed", nil},
		"a node that does not exist": {func(j *v1alpha1.VolumeBackup) {
			j.Labels[contract.LabelNode] = "nowhere"
		}, "NoDaemonOnNode", []string{"nowhere", "estiba-node"}},
		"a volume that does not exist": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Name = "nothing"
		}, "VolumeNotFound", []string{`"nothing"`, "spec.volume.name", good.Spec.Volume.Pod.Name, "back the pod up again"}},
		"a claim as an emptyDir": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Kind, j.Spec.Volume.Claim = v1alpha1.VolumeEmptyDir, nil
		}, "VolumeMismatch", []string{`"data"`, "spec.volume.kind", "back the pod up again"}},
		"another claim": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Claim.Name = "other"
		}, "VolumeMismatch", []string{`"data"`, `"other"`, "spec.volume.claim.name", "back the pod up again"}},
		"a claim's predecessor": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Claim.UID = "a-claim-of-before"
		}, "VolumeMismatch", []string{c.namespace + "/data", "a-claim-of-before", "spec.volume.claim.uid", "back the pod up again"}},
		"another volume": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Claim.PersistentVolume = "pv-of-others"
		}, "VolumeMismatch", []string{c.namespace + "/data", "pv-of-others", "spec.volume.claim.persistentVolume", "back the pod up again"}},
		"a volume's predecessor": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Claim.PersistentVolumeUID = "a-pv-of-before"
		}, "VolumeMismatch", []string{"a-pv-of-before", "spec.volume.claim.persistentVolumeUID", "back the pod up again"}},
		"a location that does not exist": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Repository.BackupStorageLocation = "nowhere"
		}, "LocationNotFound", []string{"BackupStorageLocation nowhere", "spec.repository.backupStorageLocation", "kubectl"}},
		"a repository of another ID": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Repository.ID = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
		}, "RepositoryMismatch", []string{"aaaaaaaaaaaaaaaaaaaaaaaaaa", good.Spec.Repository.ID, "spec.repository.id", "back the volume up again"}},
		"a repository of another namespace": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Repository.Namespace = "kube-system"
		}, "RepositoryMismatch", []string{"kube-system", c.namespace, "spec.repository.namespace", "back the volume up again"}},
		"a Backup that does not exist": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Backup.Name = "nothing"
		}, "OwnerGone", []string{"Backup nothing", "spec.backup", "velero backup create"}},
		"a Backup's predecessor": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Backup.UID = "a-backup-of-before"
		}, "OwnerGone", []string{good.Spec.Backup.Name, "a-backup-of-before", "spec.backup", "velero backup create"}},
		"a Backup that has ended": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Backup = v1alpha1.OwnerReference{Name: c.namespace, UID: c.backupUID(c.namespace)}
		}, "OwnerNotRunning", []string{"Backup " + c.namespace, "velero backup create"}},
	}

	// Times in objects are whole seconds, and a job that was made in the last one of its Backup is finished.
	require.NoError(t, c.Wait(c.ctx, "the last second of the Backup to be over", func(ctx context.Context) (bool, error) {
		var b velerov1.Backup
		err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.namespace}, &b)

		return err == nil && time.Since(b.Status.CompletionTimestamp.Time) >= 2*time.Second, err
	}))

	// All at once: one of the bounds takes a minute.
	forged, n := map[string]*v1alpha1.VolumeBackup{}, 0

	for name, test := range tests {
		job := good.DeepCopy()
		job.Name = fmt.Sprintf("%s-%d", c.namespace, n)
		test.forge(job)
		c.create(job)

		forged[name] = job
		n++
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var job v1alpha1.VolumeBackup

			require.NoError(t, c.Wait(c.ctx, "the job to end", func(ctx context.Context) (bool, error) {
				err := c.Get(ctx, client.ObjectKeyFromObject(forged[name]), &job)

				return job.Status.Phase.Terminal(), err
			}))
			assert.Equal(t, test.reason, job.Status.Reason, job.Status.Message)
			assert.Equal(t, test.reason == "Completed", job.Status.Phase == v1alpha1.PhaseCompleted)
			assert.NotEqual(t, v1alpha1.PhaseInProgress, job.Status.Phase)

			for _, part := range test.names {
				assert.Contains(t, job.Status.Message, part)
			}
		})
	}
}

func TestARestoreIntoAVolumeInUseWritesNothing(t *testing.T) {
	t.Parallel()

	c := open(t)
	a, pod := c.app(classDelete, lab.Data{Files: 5, Bytes: 1 << 14, Seed: 31})
	c.backup(c.namespace)

	for _, dir := range c.volumes(a, pod) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "written since"), []byte("by the application"), 0o600))
	}

	kept := c.keep(a, pod)
	owner := c.owner(&velerov1.Restore{
		Spec:   velerov1.RestoreSpec{BackupName: c.namespace},
		Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseInProgress},
	})

	jobs, err := c.VolumeBackups(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, jobs, 2)

	for _, node := range []string{"", jobs[0].Status.Node} {
		for _, from := range jobs {
			name := from.Spec.Volume.Name + " given to the controller"
			if node != "" {
				name = from.Spec.Volume.Name + " given to the node"
			}

			t.Run(name, func(t *testing.T) {
				job := &v1alpha1.VolumeRestore{Spec: v1alpha1.VolumeRestoreSpec{
					Restore:    v1alpha1.OwnerReference{Name: owner.Name, UID: owner.UID},
					Repository: from.Spec.Repository,
					Snapshot:   v1alpha1.SnapshotReference{Job: from.Name, Backup: from.Spec.Backup},
					Target:     from.Spec.Volume,
				}}
				job.Namespace, job.GenerateName = c.Namespace, c.namespace+"-"
				job.Labels = map[string]string{contract.LabelRestoreName: owner.Name, contract.LabelRestoreUID: string(owner.UID)}
				c.create(job)

				if node != "" {
					// As if the controller had chosen the pod.
					before := job.DeepCopy()
					job.Status.Pod = &job.Spec.Target.Pod
					require.NoError(t, c.Status().Patch(c.ctx, job, client.MergeFrom(before)))

					before = job.DeepCopy()
					job.Labels[contract.LabelNode] = node
					require.NoError(t, client.IgnoreNotFound(c.Patch(c.ctx, job, client.MergeFrom(before))))
				}

				require.NoError(t, c.Wait(c.ctx, "the job to end", func(ctx context.Context) (bool, error) {
					err := c.Get(ctx, client.ObjectKeyFromObject(job), job)

					return job.Status.Phase.Terminal(), err
				}))
				assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
				assert.Equal(t, "UngatedPod", job.Status.Reason)
				assert.Contains(t, job.Status.Message, pod.Name)
				assert.Contains(t, job.Status.Message, "restore again")
			})
		}
	}

	c.same(kept, a, pod)
}

func TestAJobThatIsWrongInItselfIsRefused(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.app(classDelete, lab.Data{Files: 5, Bytes: 1 << 14, Seed: 32})
	c.backup(c.namespace)
	good := c.goodBackup()

	for name, test := range map[string]struct {
		forge func(j *v1alpha1.VolumeBackup)
		says  string
	}{
		"a repository ID that is a path": {func(j *v1alpha1.VolumeBackup) { j.Spec.Repository.ID = "../../../../../../secrets" }, "spec.repository.id"},
		"a claim's volume without claim": {func(j *v1alpha1.VolumeBackup) { j.Spec.Volume.Claim = nil }, "claim is for volumes of kind PersistentVolumeClaim, and they need it"},
		"an emptyDir with a claim":       {func(j *v1alpha1.VolumeBackup) { j.Spec.Volume.Kind = v1alpha1.VolumeEmptyDir }, "claim is for volumes of kind PersistentVolumeClaim, and they need it"},
		"a kind that nobody knows":       {func(j *v1alpha1.VolumeBackup) { j.Spec.Volume.Kind = "Floppy" }, "spec.volume.kind"},
		"no pod":                         {func(j *v1alpha1.VolumeBackup) { j.Spec.Volume.Pod.Name = "" }, "spec.volume.pod.name"},
		"an emptyDir without a name": {func(j *v1alpha1.VolumeBackup) {
			j.Spec.Volume.Kind, j.Spec.Volume.Claim, j.Spec.Volume.Name = v1alpha1.VolumeEmptyDir, nil, ""
		}, "a volume without a claim is named by its pod and by its name there"},
		"no Backup":   {func(j *v1alpha1.VolumeBackup) { j.Spec.Backup.Name = "" }, "spec.backup.name"},
		"no location": {func(j *v1alpha1.VolumeBackup) { j.Spec.Repository.BackupStorageLocation = "" }, "spec.repository.backupStorageLocation"},
	} {
		t.Run(name, func(t *testing.T) {
			job := good.DeepCopy()
			job.Name = c.namespace
			test.forge(job)

			err := c.Create(c.ctx, job)
			require.ErrorContains(t, err, test.says)
		})
	}

	job := good.DeepCopy()
	job.Name = c.namespace
	c.create(job)

	for name, test := range map[string]struct{ patch, says string }{
		"another volume":     {`{"spec":{"volume":{"name":"scratch"}}}`, "spec is immutable, except for cancel"},
		"another repository": {`{"spec":{"repository":{"namespace":"kube-system"}}}`, "spec is immutable, except for cancel"},
		"another Backup":     {`{"spec":{"backup":{"name":"other"}}}`, "spec is immutable, except for cancel"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.Patch(c.ctx, job.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(test.patch)))
			require.ErrorContains(t, err, test.says)
		})
	}

	t.Run("a cancellation that is taken back", func(t *testing.T) {
		c.cancel(job.DeepCopy())

		for _, patch := range []string{`{"spec":{"cancel":false}}`, `{"spec":{"cancel":null}}`} {
			err := c.Patch(c.ctx, job.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
			require.ErrorContains(t, err, "cancel can't be taken back", patch)
		}
	})
}

// goodBackup returns a job like the one of the claim "data" in the backup named as the cell's namespace, of a
// Backup that is being worked on.
func (c *cell) goodBackup() *v1alpha1.VolumeBackup {
	c.t.Helper()

	owner := c.owner(&velerov1.Backup{
		Spec:   velerov1.BackupSpec{StorageLocation: "default", IncludedNamespaces: []string{c.namespace}},
		Status: velerov1.BackupStatus{Phase: velerov1.BackupPhaseInProgress},
	})

	for _, job := range c.completed(c.namespace, 2) {
		if job.Spec.Volume.Claim == nil {
			continue
		}

		good := &v1alpha1.VolumeBackup{Spec: job.Spec}
		good.Namespace = c.Namespace
		good.Spec.Backup = v1alpha1.OwnerReference{Name: owner.Name, UID: owner.UID}
		good.Labels = map[string]string{
			contract.LabelNode: job.Labels[contract.LabelNode], contract.LabelBackupName: owner.Name, contract.LabelBackupUID: string(owner.UID),
		}

		return good
	}

	require.Fail(c.t, "the backup has no job of a claim")

	return nil
}

func (c *cell) backupUID(name string) types.UID {
	c.t.Helper()

	var b velerov1.Backup
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: name}, &b))

	return b.UID
}

// create makes an object in Velero's namespace and removes it when the test ends.
func (c *cell) create(o client.Object) {
	c.t.Helper()
	require.NoError(c.t, c.Create(c.ctx, o))

	key := o.DeepCopyObject().(client.Object)

	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		assert.NoError(c.t, client.IgnoreNotFound(c.Delete(ctx, key)))
	})
}
