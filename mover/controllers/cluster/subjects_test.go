package cluster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/metrics"
	"github.com/estiba-dev/estiba/mover/state"
)

// notes takes events down, with what they are about.
type notes []string

func (n *notes) Event(o runtime.Object, _, reason, _ string) {
	if r, ok := o.(*corev1.ObjectReference); ok {
		*n = append(*n, fmt.Sprintf("%s %s of %s: %s", r.Kind, r.Name, r.UID, reason))
	}
}

func (n *notes) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	n.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

func (n *notes) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	n.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

func TestThePodAndTheClaimAreToldWhatTheControllerFound(t *testing.T) {
	t.Parallel()

	owner := &velerov1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "r", UID: "ruid"}, Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseInProgress}}
	job := jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{
		Restore: v1alpha1.OwnerReference{Name: "r", UID: "ruid"},
		Target:  v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "shared"}},
	})
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "web-0", UID: "puid"},
		Spec: corev1.PodSpec{NodeName: "n1", Volumes: []corev1.Volume{{
			Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"}},
		}}},
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "shared", UID: "cuid"}}
	w := newWorld(t, owner, job, pod, claim)

	var told notes

	w.Events = &told

	_, err := w.ReconcileRestore(t.Context(), req(job.Name))
	require.NoError(t, err)
	assert.Equal(t, "Pod web-0 of puid: UngatedPod\nPersistentVolumeClaim shared of cuid: UngatedPod", strings.Join(told, "\n"))
}

func TestThePodOfANodeWithoutADaemonIsTold(t *testing.T) {
	t.Parallel()

	owner, job := backupJob()
	w := newWorld(t, owner, job)

	var told notes

	w.Events = &told
	w.backup(t, job.Name)
	w.clock.Step(time.Minute)
	w.backup(t, job.Name)
	assert.Equal(t, notes{"Pod web-0 of puid: " + state.ReasonNoDaemonOnNode}, told)
}

func TestADeletionWaitsForTheBackupOfItsSnapshot(t *testing.T) {
	t.Parallel()

	owner, backup := backupJob()
	job := jobs.NewDeletion(veleroNS, v1alpha1.SnapshotDeletionSpec{
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: idA},
		Snapshot:   v1alpha1.SnapshotReference{Job: backup.Name, Backup: v1alpha1.OwnerReference{Name: "b", UID: "buid"}},
	})
	w := newWorld(t, owner, backup, job, location("default"))

	r, err := w.ReconcileDeletion(t.Context(), req(job.Name))
	require.NoError(t, err)
	assert.Positive(t, r.RequeueAfter)
	assert.Empty(t, w.tasks.Begun(job.Name))

	backup, _ = w.backup(t, backup.Name)
	backup.Status.Phase = v1alpha1.PhaseCanceled
	require.NoError(t, w.client.Status().Update(t.Context(), backup))

	_, err = w.ReconcileDeletion(t.Context(), req(job.Name))
	require.NoError(t, err)
	assert.Len(t, w.tasks.Begun(job.Name), 1)
}

func TestRepositoriesAreCounted(t *testing.T) {
	t.Parallel()

	w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), jobs.NewRepository(veleroNS, "gone", "app"))
	registry := prometheus.NewRegistry()

	var err error

	w.Metrics, err = metrics.New(registry)
	require.NoError(t, err)

	_, err = w.repos.Reconcile(t.Context(), req(jobs.RepositoryName("default", "app")))
	require.NoError(t, err)

	families, err := registry.Gather()
	require.NoError(t, err)

	for _, f := range families {
		if strings.HasSuffix(f.GetName(), "_repositories") {
			assert.Contains(t, fmt.Sprint(f.GetMetric()), "LocationNotFound")
			assert.Len(t, f.GetMetric(), 2)

			return
		}
	}

	assert.Fail(t, "repositories are not counted")
}
