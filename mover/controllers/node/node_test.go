package node_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/controllers/task/tasktest"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/metrics"
	"github.com/estiba-dev/estiba/mover/state"
)

const (
	veleroNS = "velero"
	repoID   = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a node with its surroundings.
type world struct {
	*node.Node
	client   client.Client
	tasks    *tasktest.Fake
	clock    *clocktesting.FakeClock
	events   *record.FakeRecorder
	registry prometheus.Gatherer
}

type noVolumes struct{ err error }

func (v noVolumes) Open(context.Context, node.Volume) (*os.File, error) {
	if v.err != nil {
		return nil, v.err
	}

	return os.Open(os.DevNull)
}

// hasty is a clock by which no list is of any age to be shared: a test sees at once what it has changed.
type hasty struct {
	clocktesting.FakeClock

	minutes atomic.Int64
}

func (h *hasty) Now() time.Time { return start.Add(time.Duration(h.minutes.Add(2)) * time.Minute) }

func (h *hasty) Since(at time.Time) time.Duration { return h.Now().Sub(at) }

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, velerov1.AddToScheme, v1alpha1.AddToScheme} {
		require.NoError(t, add(scheme))
	}

	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.VolumeBackup{}, &v1alpha1.VolumeRestore{}).Build()
	clk := clocktesting.NewFakeClock(start)
	tasks := tasktest.New(clk.Now)
	events := record.NewFakeRecorder(100)

	registry := prometheus.NewRegistry()
	m, err := metrics.New(registry)
	require.NoError(t, err)

	return &world{client: c, registry: registry, tasks: tasks, clock: clk, events: events, Node: &node.Node{
		Name: "n1", Namespace: veleroNS, Client: c, Direct: c, Pods: podlist.New(c, &hasty{}), Tasks: tasks, Volumes: noVolumes{}, Events: events,
		Metrics: m, Clock: clk, Bounds: state.DefaultBounds(),
	}}
}

func (w *world) backup(t *testing.T, name string) *v1alpha1.VolumeBackup {
	t.Helper()

	_, err := w.ReconcileBackup(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: veleroNS, Name: name}})
	require.NoError(t, err)

	var job v1alpha1.VolumeBackup

	require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: veleroNS, Name: name}, &job))

	return &job
}

func (w *world) restore(t *testing.T, name string) *v1alpha1.VolumeRestore {
	t.Helper()

	_, err := w.ReconcileRestore(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: veleroNS, Name: name}})
	require.NoError(t, err)

	var job v1alpha1.VolumeRestore

	require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: veleroNS, Name: name}, &job))

	return &job
}

// scene is a consistent set of live objects behind a backup of one claim.
type scene struct {
	backup *velerov1.Backup
	bsl    *velerov1.BackupStorageLocation
	repo   *v1alpha1.Repository
	pod    *corev1.Pod
	claim  *corev1.PersistentVolumeClaim
	pv     *corev1.PersistentVolume
	job    *v1alpha1.VolumeBackup
}

func newScene() *scene {
	s := &scene{
		backup: &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "b", UID: "buid"}, Status: velerov1.BackupStatus{Phase: velerov1.BackupPhaseInProgress}},
		bsl:    &velerov1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "default"}},
		repo: &v1alpha1.Repository{
			ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: jobs.RepositoryName("default", "app")},
			Spec:       v1alpha1.RepositorySpec{BackupStorageLocation: "default", Namespace: "app"},
			Status:     v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryReady, ID: repoID},
		},
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "web-0", UID: "puid"},
			Spec: corev1.PodSpec{NodeName: "n1", Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-web-0"},
			}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning},
		},
		claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "data-web-0", UID: "cuid"},
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv1"},
		},
		pv: &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv1", UID: "vuid"},
			Spec:       corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{UID: "cuid"}},
		},
	}
	s.job = jobs.NewBackup(veleroNS, "n1", v1alpha1.VolumeBackupSpec{
		Backup:     v1alpha1.OwnerReference{Name: "b", UID: "buid"},
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: repoID},
		Volume: v1alpha1.VolumeReference{
			Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Name: "data",
			Pod:   v1alpha1.PodReference{Name: "web-0", UID: "puid"},
			Claim: &v1alpha1.ClaimReference{Name: "data-web-0", UID: "cuid", PersistentVolume: "pv1", PersistentVolumeUID: "vuid"},
		},
		Source: v1alpha1.SourceIdentity{Path: "/persistentvolumeclaim/data-web-0", Instance: "pvc/cuid/vuid"},
	})
	s.job.UID, s.job.CreationTimestamp = "juid", metav1.NewTime(start)

	return s
}

// freeze makes the job one of an application that hooks keep quiesced: it is not read through another pod.
func (s *scene) freeze() { s.job.Spec.Options.Frozen = true }

func (s *scene) objects() []client.Object {
	return []client.Object{s.backup, s.bsl, s.repo, s.pod, s.claim, s.pv, s.job}
}

func TestBackupRunsItsCourse(t *testing.T) {
	t.Parallel()

	s := newScene()
	w := newWorld(t, s.objects()...)
	name := s.job.Name

	job := w.backup(t, name)
	assert.Equal(t, v1alpha1.PhaseAccepted, job.Status.Phase)
	assert.Equal(t, "n1", job.Status.Node)

	begun := w.tasks.Begun(name)
	require.Len(t, begun, 1)
	assert.Equal(t, int32(1), begun[0].Attempt)
	assert.Equal(t, name, begun[0].Backup.Tags[contract.TagJob])
	assert.Equal(t, "app", begun[0].Backup.Host)

	f, err := begun[0].OpenVolume(t.Context())
	require.NoError(t, err)
	require.NoError(t, f.Close())

	w.tasks.Set(name, func(r *task.Run) {
		r.State, r.Ran, r.Position = state.TaskRunning, true, 0
		r.Progress = engine.Progress{BytesDone: 5, TotalBytes: 10}
		r.Fences = &task.Fences{Missing: []string{"Landlock"}, Detail: "the kernel has no Landlock"}
	})

	job = w.backup(t, name)
	assert.Equal(t, v1alpha1.PhaseInProgress, job.Status.Phase)
	assert.Equal(t, int64(5), job.Status.Progress.BytesDone)
	assert.Equal(t, "5 B of 10 B", job.Status.Progress.Text)
	assert.Equal(t, int32(1), job.Status.Attempts)
	assert.Len(t, job.Status.Conditions, 2)

	w.tasks.Set(name, func(r *task.Run) {
		r.State, r.Ended = state.TaskEnded, start.Add(time.Second)
		r.Result.Backup = &engine.BackupResult{SnapshotID: "k1", LostPacks: 3, Summary: engine.Summary{Bytes: 10, Files: 2, Omissions: []engine.Omission{{Reason: engine.OmittedSocket, Count: 1}}}}
	})

	job = w.backup(t, name)
	assert.Equal(t, v1alpha1.PhaseCompleted, job.Status.Phase)
	assert.Equal(t, "k1", job.Status.SnapshotID)
	assert.Equal(t, int64(10), job.Status.Progress.BytesDone)
	assert.Equal(t, "10 B", job.Status.Progress.Text)
	assert.NotEmpty(t, job.Status.Summary.NewData)
	assert.Equal(t, "Socket", job.Status.Summary.Omissions[0].Reason)
	assert.NotNil(t, job.Status.CompletionTimestamp)
	assert.Contains(t, w.tasks.Ended(name), task.Forget)
	require.Len(t, w.tasks.Begun(name), 1, "a job is done once")
	assert.Equal(t, int64(3), job.Status.LostPacks)
	assert.Subset(t, w.tasks.Begun(name)[0].Backup.Tags,
		jobs.ExpectedTags(v1alpha1.SnapshotReference{Backup: job.Spec.Backup}, job.Spec.Repository), "a restore and a deletion find what a backup writes")
}

// Velero loses an operation now and then where it backs up several items at a time. The record of the volume is in the
// backup, so the job that it names is begun, whether Velero waits for it or not.
func TestBackupOfAnOperationThatVeleroLostIsBegun(t *testing.T) {
	t.Parallel()

	for _, phase := range []velerov1.BackupPhase{
		velerov1.BackupPhaseFinalizing, velerov1.BackupPhaseFinalizingPartiallyFailed,
		velerov1.BackupPhaseCompleted, velerov1.BackupPhasePartiallyFailed,
	} {
		s := newScene()
		s.backup.Status.Phase, s.backup.Status.CompletionTimestamp = phase, ptr.To(metav1.NewTime(start.Add(time.Second)))
		s.job.CreationTimestamp = metav1.NewTime(start)
		w := newWorld(t, s.objects()...)

		w.backup(t, s.job.Name)
		assert.Len(t, w.tasks.Begun(s.job.Name), 1, "%s", phase)
	}
}

func TestBackupIsCheckedAgainstTheLiveObjects(t *testing.T) {
	t.Parallel()

	now := metav1.NewTime(start)
	block := corev1.PersistentVolumeBlock

	for name, c := range map[string]struct {
		change func(*scene)
		reason string
		names  string
	}{
		"the Backup is another one of that name": {func(s *scene) { s.backup.UID = "x" }, state.ReasonOwnerGone, "Backup b"},
		"the Backup has failed":                  {func(s *scene) { s.backup.Status.Phase = velerov1.BackupPhaseFailed }, state.ReasonOwnerFailed, "Backup b"},
		"the Backup was over before the job was made": {func(s *scene) {
			s.backup.Status.Phase, s.backup.Status.CompletionTimestamp = velerov1.BackupPhaseCompleted, &now
			s.job.CreationTimestamp = metav1.NewTime(start.Add(time.Second))
		}, state.ReasonOwnerNotRunning, "Completed"},
		"the Backup is being deleted":                 {func(s *scene) { s.backup.Status.Phase = velerov1.BackupPhaseDeleting }, state.ReasonOwnerNotRunning, "Deleting"},
		"the Backup has not begun":                    {func(s *scene) { s.backup.Status.Phase = velerov1.BackupPhaseNew }, state.ReasonOwnerNotRunning, "New"},
		"the repository has another ID":               {func(s *scene) { s.repo.Status.ID = "bbbbbbbbbbbbbbbbbbbbbbbbbb" }, state.ReasonRepositoryMismatch, "spec.repository.id"},
		"the location does not exist":                 {func(s *scene) { s.bsl.Name = "other" }, state.ReasonLocationNotFound, "BackupStorageLocation default"},
		"the repository is another namespace's":       {func(s *scene) { s.job.Spec.Repository.Namespace = "other" }, state.ReasonRepositoryMismatch, "spec.repository.namespace"},
		"the pod was replaced, and it was frozen":     {func(s *scene) { s.freeze(); s.pod.UID = "x" }, state.ReasonPodReplaced, "metadata.uid"},
		"the pod is on another node":                  {func(s *scene) { s.pod.Spec.NodeName = "n2" }, state.ReasonPodMoved, "spec.nodeName"},
		"the pod is gone, and it was frozen":          {func(s *scene) { s.freeze(); s.pod.Name = "other" }, state.ReasonPodNotFound, "app/web-0"},
		"the pod has ended, and it was frozen":        {func(s *scene) { s.freeze(); s.pod.Status.Phase = corev1.PodSucceeded }, state.ReasonPodNotRunning, "status.phase"},
		"the pod is being deleted, and it was frozen": {func(s *scene) { s.freeze(); s.pod.DeletionTimestamp, s.pod.Finalizers = &now, []string{"x/y"} }, state.ReasonPodDeleted, "deletionTimestamp"},
		"the pod has no such volume":                  {func(s *scene) { s.pod.Spec.Volumes[0].Name = "x" }, state.ReasonVolumeNotFound, "spec.volumes"},
		"the volume is of another claim":              {func(s *scene) { s.pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "x" }, state.ReasonVolumeMismatch, "claim"},
		"the claim was replaced":                      {func(s *scene) { s.claim.UID = "x" }, state.ReasonVolumeMismatch, "metadata.uid"},
		"the claim is bound to another volume":        {func(s *scene) { s.claim.Spec.VolumeName = "x" }, state.ReasonVolumeMismatch, "spec.volumeName"},
		"the claim is a raw device":                   {func(s *scene) { s.claim.Spec.VolumeMode = &block }, state.ReasonVolumeUnsupported, "spec.volumeMode"},
		"the PersistentVolume was replaced":           {func(s *scene) { s.pv.UID = "x" }, state.ReasonVolumeMismatch, "PersistentVolume pv1"},
		"the PersistentVolume belongs to another":     {func(s *scene) { s.pv.Spec.ClaimRef.UID = "x" }, state.ReasonVolumeMismatch, "spec.claimRef"},
		"the volume is no emptyDir as the job has":    {func(s *scene) { s.job.Spec.Volume.Kind, s.job.Spec.Volume.Claim = v1alpha1.VolumeEmptyDir, nil }, state.ReasonVolumeMismatch, "none of the kind EmptyDir"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newScene()
			c.change(s)
			w := newWorld(t, s.objects()...)

			job := w.backup(t, s.job.Name)
			assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
			assert.Equal(t, c.reason, job.Status.Reason)
			assert.Contains(t, job.Status.Message, c.names)
			assert.Empty(t, w.tasks.Begun(s.job.Name), "nothing is opened")
			assert.Contains(t, <-w.events.Events, c.reason)
		})
	}
}

func TestPodThatGoesAwayGetsItsVolumeBackAtOnce(t *testing.T) {
	t.Parallel()

	s := newScene()
	s.freeze()
	s.pod.Finalizers = []string{"x/y"}
	w := newWorld(t, s.objects()...)
	w.backup(t, s.job.Name)
	w.tasks.Set(s.job.Name, func(r *task.Run) { r.State, r.Ran = state.TaskRunning, true })
	w.backup(t, s.job.Name)

	require.NoError(t, w.client.Delete(t.Context(), s.pod))

	job := w.backup(t, s.job.Name)
	assert.Equal(t, v1alpha1.PhaseCanceling, job.Status.Phase)
	assert.Contains(t, w.tasks.Ended(s.job.Name), task.Abort)

	job = w.backup(t, s.job.Name)
	assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
	assert.Equal(t, state.ReasonPodDeleted, job.Status.Reason)
}

func TestAClaimWhosePodGoesAwayIsLeftToTheController(t *testing.T) {
	t.Parallel()

	now := metav1.NewTime(start)

	for name, lose := range map[string]func(*scene){
		"it was replaced":     func(s *scene) { s.pod.UID = "x" },
		"it is gone":          func(s *scene) { s.pod.Name = "other" },
		"it has ended":        func(s *scene) { s.pod.Status.Phase = corev1.PodSucceeded },
		"it is being deleted": func(s *scene) { s.pod.DeletionTimestamp, s.pod.Finalizers = &now, []string{"x/y"} },
	} {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the worker runs: %t", name, running), func(t *testing.T) {
				t.Parallel()

				s := newScene()
				lose(s)

				if running {
					s.job.Status.Phase, s.job.Status.Reason, s.job.Status.Attempts = v1alpha1.PhaseInProgress, state.ReasonRunning, 1
				}

				w := newWorld(t, s.objects()...)
				if running {
					w.tasks.Begin(s.job.Name, task.Work{UID: s.job.UID + "/puid", Attempt: 1})
					w.tasks.Set(s.job.Name, func(r *task.Run) { r.State, r.Ran = state.TaskRunning, true })
				}

				job := w.backup(t, s.job.Name)
				assert.Equal(t, state.ReasonPodLost, job.Status.Reason, job.Status.Message)
				assert.False(t, job.Status.Phase.Terminal())
				assert.Zero(t, job.Status.Attempts, "that was no attempt")
				assert.Equal(t, running, slices.Contains(w.tasks.Ended(s.job.Name), task.Abort), "the volume is let go at once")
			})
		}
	}
}

func TestAClaimIsReadThroughThePodThatTheControllerHasChosenInsteadOfAnother(t *testing.T) {
	t.Parallel()

	s := newScene()
	s.pod.Name, s.pod.UID = "web-1", "other"
	s.pod.Spec.Volumes[0].Name = "files"
	s.job.Status.Pod = &v1alpha1.PodReference{Name: "web-1", UID: "other"}
	w := newWorld(t, s.objects()...)

	job := w.backup(t, s.job.Name)
	assert.Equal(t, v1alpha1.PhaseAccepted, job.Status.Phase, job.Status.Message)

	begun := w.tasks.Begun(s.job.Name)
	require.Len(t, begun, 1)

	f, err := begun[0].OpenVolume(t.Context())
	require.NoError(t, err)
	require.NoError(t, f.Close())
	assert.Equal(t, s.job.Spec.Source.Path, begun[0].Backup.Path, "it is the same source")
}

func TestRestartResumes(t *testing.T) {
	t.Parallel()

	s := newScene()
	s.job.Status.Phase, s.job.Status.Reason, s.job.Status.Attempts = v1alpha1.PhaseInProgress, state.ReasonRunning, 1
	w := newWorld(t, s.objects()...)

	job := w.backup(t, s.job.Name)
	assert.Equal(t, v1alpha1.PhaseInProgress, job.Status.Phase)
	assert.Equal(t, state.ReasonResumed, job.Status.Reason)
	require.Len(t, w.tasks.Begun(s.job.Name), 1)
	assert.Equal(t, int32(2), w.tasks.Begun(s.job.Name)[0].Attempt)
	assert.Equal(t, int32(1), job.Status.Interruptions)

	w.tasks.Set(s.job.Name, func(r *task.Run) { r.State, r.Ran = state.TaskRunning, true })

	job = w.backup(t, s.job.Name)
	assert.Equal(t, state.ReasonRunning, job.Status.Reason)
	assert.Equal(t, int32(2), job.Status.Attempts)
	assert.Equal(t, int32(1), job.Status.Interruptions, "it is counted once")
}

func TestOthersEndingEndsTheRunHere(t *testing.T) {
	t.Parallel()

	s := newScene()
	w := newWorld(t, s.objects()...)
	job := w.backup(t, s.job.Name)
	job.Status.Phase = v1alpha1.PhaseFailed
	require.NoError(t, w.client.Status().Update(t.Context(), job))

	job = w.backup(t, s.job.Name)
	assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
	assert.Contains(t, w.tasks.Ended(s.job.Name), task.Abort)

	require.NoError(t, w.client.Delete(t.Context(), job))

	_, err := w.ReconcileBackup(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(job)})
	require.NoError(t, err)
	assert.Contains(t, w.tasks.Ended(s.job.Name), task.Forget)
}

func TestVolumeThatIsNotMountedIsWaitedFor(t *testing.T) {
	t.Parallel()

	s := newScene()
	w := newWorld(t, s.objects()...)
	w.Volumes = noVolumes{err: fmt.Errorf("pv1: %w", node.ErrNotMounted)}
	w.backup(t, s.job.Name)

	_, err := w.tasks.Begun(s.job.Name)[0].OpenVolume(t.Context())

	var blocked *task.BlockedError

	require.ErrorAs(t, err, &blocked)
	assert.True(t, blocked.NotYet)
	assert.Equal(t, state.ReasonVolumeNotMounted, blocked.Finding.Reason)
}

// restoreScene is a restore of an emptyDir whose pod stands at its gate.
func restoreScene(t *testing.T) (*velerov1.Restore, *corev1.Pod, *v1alpha1.VolumeRestore) {
	t.Helper()

	job := jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{
		Restore:    v1alpha1.OwnerReference{Name: "r", UID: "ruid"},
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: repoID},
		Snapshot:   v1alpha1.SnapshotReference{Job: "vb-1", Backup: v1alpha1.OwnerReference{Name: "b", UID: "buid"}},
		Target:     v1alpha1.VolumeReference{Kind: v1alpha1.VolumeEmptyDir, Namespace: "app", Name: "data", Pod: v1alpha1.PodReference{Name: "web-0"}},
	})
	job.UID, job.CreationTimestamp = "vruid", metav1.NewTime(start)
	job.Labels[contract.LabelNode] = "n1"
	job.Status.Phase, job.Status.Pod = v1alpha1.PhaseAccepted, &v1alpha1.PodReference{Name: "web-0", UID: "puid"}

	note, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: "ruid"}, Jobs: map[string]string{"data": job.Name}}.Encode()
	require.NoError(t, err)

	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "app", Name: "web-0", UID: "puid", CreationTimestamp: metav1.NewTime(start),
			Annotations: map[string]string{contract.AnnotationRestore: note},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", InitContainers: []corev1.Container{{Name: contract.GateContainer}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{
			{Name: contract.GateContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		}},
	}
	owner := &velerov1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "r", UID: "ruid"}, Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseInProgress}}

	return owner, pod, job
}

// A cluster may hold more than one install, and each daemon sees all pods of its node.
func TestADaemonLeavesTheGatesOfAnotherInstallAlone(t *testing.T) {
	t.Parallel()

	for install, speaks := range map[string]bool{"": true, veleroNS: true, "velero-2": false} {
		owner, pod, job := restoreScene(t)
		w := newWorld(t, owner, pod, job)

		record, err := contract.DecodeGateRecord(pod.Annotations[contract.AnnotationRestore])
		require.NoError(t, err)

		record.VeleroNamespace, record.Jobs = install, map[string]string{"data": "vr-unknown-here"}
		pod.Annotations[contract.AnnotationRestore], err = record.Encode()
		require.NoError(t, err)
		require.NoError(t, w.client.Update(t.Context(), pod))
		w.clock.Step(w.Bounds.MissingJob)

		gate := &slate{}
		result, err := node.NewGateKeeper(w.Node, gate).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(pod)})
		require.NoError(t, err)
		assert.Equal(t, speaks, len(gate.outcomes) == 1 && gate.outcomes[0].State == contract.GateFailed, install)
		assert.Equal(t, speaks, len(gate.lines) > 0, install)
		assert.Equal(t, speaks, result.RequeueAfter > 0, install)
	}
}

func TestRestoreRunsItsCourse(t *testing.T) {
	t.Parallel()

	owner, pod, job := restoreScene(t)
	w := newWorld(t, owner, pod, job)

	w.restore(t, job.Name)
	require.Len(t, w.tasks.Begun(job.Name), 1)
	assert.Equal(t, "vb-1", w.tasks.Begun(job.Name)[0].Restore.Job)
	assert.Equal(t, map[string]string{contract.TagBackupUID: "buid", contract.TagNamespace: "app"}, w.tasks.Begun(job.Name)[0].Restore.Expect,
		"a snapshot of another backup or namespace is not restored, whatever job it names")

	w.tasks.Set(job.Name, func(r *task.Run) {
		r.State, r.Ran = state.TaskEnded, true
		r.Result.Restore = &engine.RestoreResult{SnapshotID: "k1", Summary: engine.Summary{Bytes: 7}}
	})

	got := w.restore(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseCompleted, got.Status.Phase)
	assert.Equal(t, "k1", got.Status.SnapshotID)
}

func TestRestoreLooksAtTheGatesAgainWhenItHasItsSlot(t *testing.T) {
	t.Parallel()

	owner, pod, job := restoreScene(t)
	w := newWorld(t, owner, pod, job)
	w.restore(t, job.Name)

	delete(pod.Annotations, contract.AnnotationRestore)
	require.NoError(t, w.client.Update(t.Context(), pod))

	_, err := w.tasks.Begun(job.Name)[0].OpenVolume(t.Context())

	var blocked *task.BlockedError

	require.ErrorAs(t, err, &blocked)
	assert.Equal(t, state.ReasonUngatedPod, blocked.Finding.Reason)
	assert.Contains(t, blocked.Error(), "web-0")
}

// slate is a gate that remembers.
type slate struct {
	mu       sync.Mutex
	lines    []string
	outcomes []contract.GateOutcome
}

func (s *slate) Progress(_ context.Context, _ types.UID, line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)

	return nil
}

func (s *slate) Outcome(_ context.Context, _ types.UID, o contract.GateOutcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes = append(s.outcomes, o)

	return nil
}

func TestGate(t *testing.T) {
	t.Parallel()

	owner, pod, job := restoreScene(t)
	w := newWorld(t, owner, pod, job)
	gate := &slate{}
	keeper := node.NewGateKeeper(w.Node, gate)

	set := func(phase v1alpha1.Phase) ctrl.Result {
		var j v1alpha1.VolumeRestore

		require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(job), &j))
		j.Status.Phase, j.Status.Reason, j.Status.Message = phase, "Why", "because"
		require.NoError(t, w.client.Status().Update(t.Context(), &j))

		r, err := keeper.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(pod)})
		require.NoError(t, err)

		return r
	}

	assert.Positive(t, set(v1alpha1.PhaseInProgress).RequeueAfter)
	assert.Positive(t, set(v1alpha1.PhaseInProgress).RequeueAfter)
	assert.Len(t, gate.lines, 1, "the same line is written once")
	assert.Empty(t, gate.outcomes)

	assert.Positive(t, set(v1alpha1.PhaseFailed).RequeueAfter, "it may be tried again")
	require.Len(t, gate.outcomes, 1)
	assert.Equal(t, contract.GateFailed, gate.outcomes[0].State)
	assert.Contains(t, gate.outcomes[0].Message, "because")

	assert.Zero(t, set(v1alpha1.PhaseCompleted).RequeueAfter)
	require.Len(t, gate.outcomes, 2)
	assert.Equal(t, contract.GateOpen, gate.outcomes[1].State)
}

func TestGateOfAStrangerStaysShut(t *testing.T) {
	t.Parallel()

	owner, pod, job := restoreScene(t)
	job.Status.Phase = v1alpha1.PhaseCompleted
	job.Spec.Target.Namespace = "other"
	w := newWorld(t, owner, pod, job)
	gate := &slate{}

	_, err := node.NewGateKeeper(w.Node, gate).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(pod)})
	require.NoError(t, err)
	assert.Empty(t, gate.outcomes, "a job of another namespace opens nothing")
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	h := &node.Heartbeat{Node: "n1", Namespace: veleroNS, Every: 10 * time.Second, Client: w.client, Clock: w.clock}

	for range 2 {
		require.NoError(t, h.Renew(t.Context()))

		var lease coordinationv1.Lease

		require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: veleroNS, Name: h.LeaseName()}, &lease))
		assert.Equal(t, "n1", *lease.Spec.HolderIdentity)
		assert.Equal(t, contract.HeartbeatNode, lease.Labels[contract.LabelHeartbeat])
		assert.True(t, w.clock.Now().Equal(lease.Spec.RenewTime.Time))
		w.clock.Step(10 * time.Second)
	}
}

func TestAnUnreadableRecordIsTold(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*corev1.Pod){
		"a record of another release": func(p *corev1.Pod) { p.Annotations[contract.AnnotationRestore] = `{"version":99}` },
		"a record that was lost":      func(p *corev1.Pod) { p.Annotations = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, pod, job := restoreScene(t)
			change(pod)

			w := newWorld(t, owner, pod, job)
			gate := &slate{}

			_, err := node.NewGateKeeper(w.Node, gate).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(pod)})
			require.NoError(t, err)
			require.Len(t, gate.outcomes, 1)
			assert.Equal(t, contract.GateFailed, gate.outcomes[0].State)
			assert.Contains(t, gate.outcomes[0].Message, "unreadable record")
		})
	}
}
