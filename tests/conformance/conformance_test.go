package conformance_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/clientmgmt"
	"github.com/vmware-tanzu/velero/pkg/plugin/framework/common"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/bundle"
	"github.com/estiba-dev/estiba/tests/conformance/apiserver"
)

func TestVeleroFindsTheActions(t *testing.T) {
	r := registry(t, logrus.New())

	want := map[common.PluginKind][]string{
		common.PluginKindBackupItemActionV2:  {"estiba.dev/backup-claim", "estiba.dev/backup-pod", "estiba.dev/backup-volume"},
		common.PluginKindRestoreItemActionV2: {"estiba.dev/restore-batch-job", "estiba.dev/restore-claim", "estiba.dev/restore-job", "estiba.dev/restore-pod", "estiba.dev/restore-volume"},
		common.PluginKindDeleteItemAction:    {"estiba.dev/delete-claim", "estiba.dev/delete-job", "estiba.dev/delete-pod"},
	}

	var all []string

	for kind, names := range want {
		var got []string
		for _, id := range r.List(kind) {
			got = append(got, id.Name)
		}

		slices.Sort(got)
		assert.Equal(t, names, got, "%s", kind)

		all = append(all, names...)
	}

	slices.Sort(all)
	assert.Equal(t, all, bundle.New().Names(), "the bundle's own list")

	known := slices.Collect(maps.Keys(want))
	for _, kind := range slices.Collect(maps.Values(common.AllPluginKinds())) {
		if !slices.Contains(known, kind) {
			assert.Empty(t, r.List(kind), "%s", kind)
		}
	}
}

func TestActionsApplyToTheirResources(t *testing.T) {
	w := newWorld(t)

	for name, want := range map[string]string{
		"estiba.dev/backup-pod": "pods", "estiba.dev/backup-claim": "persistentvolumeclaims", "estiba.dev/backup-volume": "persistentvolumes",
	} {
		a, err := w.manager.GetBackupItemActionV2(name)
		require.NoError(t, err)
		selector, err := a.AppliesTo()
		require.NoError(t, err)
		assert.Equal(t, []string{want}, selector.IncludedResources, name)
	}

	a, err := w.manager.GetRestoreItemActionV2("estiba.dev/restore-job")
	require.NoError(t, err)
	selector, err := a.AppliesTo()
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"volumebackups.estiba.dev", "volumerestores.estiba.dev", "snapshotdeletions.estiba.dev", "repositories.estiba.dev"}, selector.IncludedResources)
	assert.Empty(t, w.api.Calls(), "nobody is called before there is something to do")
}

func TestBackup(t *testing.T) {
	w := newWorld(t)
	volume, claim, pod := w.backUpAll()

	jobsMade := apiserver.All[v1alpha1.VolumeBackup](t, w.api, backups)
	require.Len(t, jobsMade, 2, "the claim's job is not made twice")

	byKind := map[v1alpha1.VolumeKind]v1alpha1.VolumeBackup{}
	for _, job := range jobsMade {
		byKind[job.Spec.Volume.Kind] = job
		assert.Equal(t, "node-a", job.Labels[contract.LabelNode])
		assert.Equal(t, v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "shop", ID: repositoryID}, job.Spec.Repository)
	}

	claimJob, dirJob := byKind[v1alpha1.VolumePersistentVolumeClaim], byKind[v1alpha1.VolumeEmptyDir]

	assert.Equal(t, v1alpha1.RequestedByClaim, claimJob.Spec.RequestedBy)
	assert.Equal(t, v1alpha1.SourceIdentity{Path: "/persistentvolumeclaim/data", Instance: "pvc/c-1/v-1"}, claimJob.Spec.Source)
	assert.Equal(t, v1alpha1.RequestedByPod, dirJob.Spec.RequestedBy)

	// The operations, and what Velero writes into the backup when they are over.
	assert.Empty(t, volume.operation)
	assert.Equal(t, "estiba/v1/VolumeBackup/"+claimJob.Name, claim.operation)
	assert.Equal(t, "estiba/v1/VolumeBackup/"+dirJob.Name, pod.operation)
	require.Len(t, pod.items, 1)
	assert.Equal(t, "volumebackups.estiba.dev velero "+dirJob.Name, pod.items[0].String()+" "+pod.items[0].Namespace+" "+pod.items[0].Name)

	// The records, and nothing of what an earlier restore has left.
	for _, item := range []runtime.Unstructured{volume.item, claim.item} {
		record, err := contract.DecodeClaimRecord((&unstructured.Unstructured{Object: item.UnstructuredContent()}).GetAnnotations()[contract.AnnotationVolume])
		require.NoError(t, err)
		assert.Equal(t, contract.Owner{Name: "nightly", UID: "b-1"}, record.Backup)
		assert.Equal(t, claimJob.Name, record.Volume.Job)
		assert.Equal(t, "plugins/estiba/repositories/shop/"+repositoryID+"/", record.Volume.Repository.Path)
	}

	inTarball := decoded[corev1.Pod](w, pod.item)
	record, err := contract.DecodePodRecord(inTarball.Annotations[contract.AnnotationVolumes])
	require.NoError(t, err)
	assert.Equal(t, []string{"cache", "data"}, slices.Sorted(maps.Keys(record.Volumes)))
	assert.NotContains(t, inTarball.Annotations, contract.AnnotationRestore)
	require.Len(t, inTarball.Spec.InitContainers, 1)
	assert.Equal(t, "setup", inTarball.Spec.InitContainers[0].Name)
	assert.Len(t, inTarball.Spec.Volumes, 2)

	assert.Contains(t, w.log.String(), `annotation estiba.dev/backup-volumes names the volume \"gone\"`)
	assert.NotContains(t, w.log.String(), "level=error")
}

func TestBackupProgress(t *testing.T) {
	w := newWorld(t)
	_, claim, _ := w.backUpAll()

	a, err := w.manager.GetBackupItemActionV2("estiba.dev/backup-claim")
	require.NoError(t, err)

	waiting := w.backup.DeepCopy()
	waiting.Status.Phase = velerov1.BackupPhaseWaitingForPluginOperations

	p, err := a.Progress(claim.operation, waiting)
	require.NoError(t, err)
	assert.False(t, p.Completed)
	assert.Equal(t, "data: New", p.Description)

	// At the end of the run the question is held while the job is nearly done.
	timer := time.AfterFunc(500*time.Millisecond, func() { w.finish(v1alpha1.PhaseCompleted, "") })
	defer timer.Stop()

	p, err = a.Progress(claim.operation, w.backup)
	require.NoError(t, err)
	assert.True(t, p.Completed)
	assert.Empty(t, p.Err)
	assert.Equal(t, int64(1<<20), p.NCompleted)
	assert.Equal(t, "B", p.OperationUnits)

	_, err = a.Progress("somebody else's", w.backup)
	require.Error(t, err)
}

func TestBackupThatFails(t *testing.T) {
	w := newWorld(t)
	_, claim, _ := w.backUpAll()
	w.finish(v1alpha1.PhaseFailed, "StoreUnavailable")

	a, err := w.manager.GetBackupItemActionV2("estiba.dev/backup-claim")
	require.NoError(t, err)

	p, err := a.Progress(claim.operation, w.backup)
	require.NoError(t, err, "an error here would hide the message")
	assert.True(t, p.Completed)
	assert.Contains(t, p.Err, "volume data")
	assert.Contains(t, p.Err, "StoreUnavailable: what happened")
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	_, claim, _ := w.backUpAll()

	a, err := w.manager.GetBackupItemActionV2("estiba.dev/backup-claim")
	require.NoError(t, err)
	require.NoError(t, a.Cancel(claim.operation, w.backup))

	for _, job := range apiserver.All[v1alpha1.VolumeBackup](t, w.api, backups) {
		assert.Equal(t, job.Spec.Volume.Kind == v1alpha1.VolumePersistentVolumeClaim, job.Spec.Cancel)
	}
}

func TestFinalizingBeginsNoOperation(t *testing.T) {
	w := newWorld(t)
	_, first, _ := w.backUpAll()
	w.backup.Status.Phase = velerov1.BackupPhaseFinalizing

	_, claim, pod := w.backUpAll()
	assert.Empty(t, claim.operation)
	assert.Empty(t, claim.items)
	assert.Empty(t, pod.operation)
	assert.Equal(t, decoded[corev1.PersistentVolumeClaim](w, first.item).Annotations, decoded[corev1.PersistentVolumeClaim](w, claim.item).Annotations,
		"an item that Velero writes again keeps its record")
}

func TestBackupWithoutTheMover(t *testing.T) {
	tests := map[string]struct {
		breakIt func(w *world)
		says    string
	}{
		"the resource definitions are missing": {
			breakIt: func(w *world) {
				for _, r := range []string{backups, restores, deletions, repositories} {
					w.api.Withdraw(r)
				}
			},
			says: "resource definitions are not installed",
		},
		"no node daemon runs": {
			breakIt: func(w *world) {
				stale := &coordinationv1.Lease{
					ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "estiba-node-a", Labels: map[string]string{contract.LabelHeartbeat: contract.HeartbeatNode}},
					Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("node-a"), RenewTime: ptr.To(metav1.NewMicroTime(time.Now().Add(-3 * time.Minute)))},
				}
				w.api.Put(w.T, leases, stale)
			},
			says: "no node daemon of Estiba has reported",
		},
		"the repository can't be used": {
			breakIt: func(w *world) {
				repo := jobs.NewRepository("velero", "default", "shop")
				repo.Status = v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryNotReady, Reason: "MasterKeyMissing", Message: "no key", LastCheckedTimestamp: ptr.To(metav1.Now())}
				w.api.Put(w.T, repositories, repo)
			},
			says: "MasterKeyMissing: no key",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.breakIt(w)

			volume, claim, pod := w.backUpAll()
			for _, b := range []backedUp{volume, claim, pod} {
				assert.Empty(t, b.operation)
				require.NotNil(t, b.item, "the item stays in the backup")
			}

			out, err := w.restoreItem("estiba.dev/restore-pod", copied(pod.item), pod.item)
			require.NoError(t, err)
			assert.Empty(t, out.OperationID)
			assert.Len(t, out.AdditionalItems, 2, "the restore warns of each volume whose data is missing")
			assert.Len(t, decoded[corev1.Pod](w, out.UpdatedItem).Spec.InitContainers, 1, "the pod is not gated for it")

			assert.Contains(t, w.log.String(), "level=error", "the backup becomes partially failed")
			assert.Contains(t, w.log.String(), tt.says)
		})
	}
}

func (w *world) restoreItem(action string, item, fromBackup runtime.Unstructured) (*velero.RestoreItemActionExecuteOutput, error) {
	w.Helper()

	a, err := w.manager.GetRestoreItemActionV2(action)
	require.NoError(w, err)

	return a.Execute(&velero.RestoreItemActionExecuteInput{Item: item, ItemFromBackup: fromBackup, Restore: w.restore})
}

func copied(item runtime.Unstructured) runtime.Unstructured {
	return &unstructured.Unstructured{Object: runtime.DeepCopyJSON(item.UnstructuredContent())}
}

func TestRestore(t *testing.T) {
	w := newWorld(t)
	volume, claim, pod := w.backUpAll()

	out, err := w.restoreItem("estiba.dev/restore-volume", copied(volume.item), volume.item)
	require.NoError(t, err)
	assert.True(t, out.SkipRestore, "a new volume is made instead")

	out, err = w.restoreItem("estiba.dev/restore-claim", copied(claim.item), claim.item)
	require.NoError(t, err)
	assert.False(t, out.SkipRestore)

	freed := decoded[corev1.PersistentVolumeClaim](w, out.UpdatedItem)
	assert.Empty(t, freed.Spec.VolumeName)
	assert.Empty(t, freed.Annotations)

	claimOperation := out.OperationID

	out, err = w.restoreItem("estiba.dev/restore-pod", copied(pod.item), pod.item)
	require.NoError(t, err)

	gated := decoded[corev1.Pod](w, out.UpdatedItem)
	require.Len(t, gated.Spec.InitContainers, 2)
	gate := gated.Spec.InitContainers[0]
	assert.Equal(t, contract.GateContainer, gate.Name)
	assert.Equal(t, image, gate.Image)
	assert.Equal(t, []string{"--gate=/estiba-gate", "--on-failure=exit"}, gate.Args)
	assert.NotContains(t, gated.Annotations, contract.AnnotationVolumes)

	made := apiserver.All[v1alpha1.VolumeRestore](t, w.api, restores)
	require.Len(t, made, 2)

	record, err := contract.DecodeGateRecord(gated.Annotations[contract.AnnotationRestore])
	require.NoError(t, err)

	for _, job := range made {
		assert.Equal(t, "shop2", job.Spec.Target.Namespace, "the namespace that the pod is restored to")
		assert.Equal(t, "shop", job.Spec.Repository.Namespace, "the namespace that the volume came from")
		assert.Contains(t, out.OperationID, job.Name)

		if job.Spec.Target.Claim != nil {
			assert.Equal(t, job.Name, record.Jobs["data"])
			assert.Equal(t, "estiba/v1/VolumeRestore/"+job.Name, claimOperation)
		} else {
			assert.Equal(t, job.Name, record.Jobs[job.Spec.Target.Name])
		}
	}

	a, err := w.manager.GetRestoreItemActionV2("estiba.dev/restore-pod")
	require.NoError(t, err)

	waiting := w.restore.DeepCopy()
	waiting.Status.Phase = velerov1.RestorePhaseWaitingForPluginOperations
	p, err := a.Progress(out.OperationID, waiting)
	require.NoError(t, err)
	assert.False(t, p.Completed)

	require.NoError(t, a.Cancel(out.OperationID, waiting))

	for _, job := range apiserver.All[v1alpha1.VolumeRestore](t, w.api, restores) {
		assert.True(t, job.Spec.Cancel)
	}
}

func TestOwnKindsAreNeverRestored(t *testing.T) {
	w := newWorld(t)
	job := content(w, jobs.NewBackup("velero", "n", v1alpha1.VolumeBackupSpec{}))
	job.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("VolumeBackup"))

	out, err := w.restoreItem("estiba.dev/restore-job", job, job)
	require.NoError(t, err)
	assert.True(t, out.SkipRestore)
}

func TestRestoreWithoutTheMoverHoldsThePodBack(t *testing.T) {
	w := newWorld(t)
	_, claim, pod := w.backUpAll()
	w.api.Withdraw(restores)

	_, err := w.restoreItem("estiba.dev/restore-claim", copied(claim.item), claim.item)
	require.ErrorContains(t, err, "it would come back empty")

	out, err := w.restoreItem("estiba.dev/restore-pod", copied(pod.item), pod.item)
	require.NoError(t, err)
	require.True(t, out.WaitForAdditionalItems)
	assert.Equal(t, []corev1.PodSchedulingGate{{Name: contract.SchedulingGate}}, decoded[corev1.Pod](w, out.UpdatedItem).Spec.SchedulingGates)

	a, err := w.manager.GetRestoreItemActionV2("estiba.dev/restore-pod")
	require.NoError(t, err)

	_, err = a.AreAdditionalItemsReady(out.AdditionalItems, w.restore)
	require.ErrorContains(t, err, "pod shop/web is held back from starting without its data")
	require.ErrorContains(t, err, "apply your overlay of Estiba's manifests")
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	_, claim, pod := w.backUpAll()

	for action, item := range map[string]runtime.Unstructured{"estiba.dev/delete-claim": claim.item, "estiba.dev/delete-pod": pod.item} {
		a, err := w.manager.GetDeleteItemAction(action)
		require.NoError(t, err)
		require.NoError(t, a.Execute(&velero.DeleteItemActionExecuteInput{Item: item, Backup: w.backup}))
	}

	made := apiserver.All[v1alpha1.SnapshotDeletion](t, w.api, deletions)
	require.Len(t, made, 2, "the claim's snapshot is named by both items and deleted once")

	for _, d := range made {
		assert.Equal(t, "default", d.Spec.Repository.BackupStorageLocation)
		assert.Equal(t, repositoryID, d.Spec.Repository.ID)
		assert.Equal(t, v1alpha1.OwnerReference{Name: "nightly", UID: "b-1"}, d.Spec.Snapshot.Backup)
	}
}

// Velero starts the plugin anew every 10 s while a backup waits.
func TestStartIsQuickAndTheBinarySmall(t *testing.T) {
	info, err := os.Stat(filepath.Join(pluginDir, "estiba"))
	require.NoError(t, err)

	w := newWorld(t)
	_, claim, _ := w.backUpAll()
	w.backup.Status.Phase = velerov1.BackupPhaseWaitingForPluginOperations
	w.api.Calls()

	best := time.Hour

	for range 5 {
		log := logrus.New()
		log.SetOutput(w.log)
		m := clientmgmt.NewManager(log, logrus.InfoLevel, registry(t, log))

		start := time.Now()
		a, err := m.GetBackupItemActionV2("estiba.dev/backup-claim")
		require.NoError(t, err)
		_, err = a.Progress(claim.operation, w.backup)
		require.NoError(t, err)

		best = min(best, time.Since(start))

		m.CleanupClients()
		assert.Len(t, w.api.Calls(), 1, "one question costs one call")
	}

	t.Logf("binary %.1f MB; from start to the first answer about progress %s (best of 5)", float64(info.Size())/1e6, best.Round(time.Millisecond))
	assert.Less(t, info.Size(), int64(60e6))
	assert.Less(t, best, 2*time.Second, "far above what was measured, so that a busy machine doesn't fail it")
}

func TestThePluginHoldsNoKopia(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/estiba-dev/estiba/cmd/velero-plugin").Output()
	require.NoError(t, err)

	deps := strings.Fields(string(out))
	require.Contains(t, deps, "github.com/estiba-dev/estiba/plugins/bundle")

	for _, dep := range deps {
		assert.False(t, strings.HasPrefix(dep, "github.com/kopia/kopia") || strings.Contains(dep, "project-velero/kopia"), dep)
	}
}
