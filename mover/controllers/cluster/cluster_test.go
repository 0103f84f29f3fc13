package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
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
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/cluster"
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
	idA      = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	idB      = "bbbbbbbbbbbbbbbbbbbbbbbbbb"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// store is the buckets of all locations, in memory.
type store struct {
	mu      sync.Mutex
	objects map[string]string // location + ":" + path
	down    bool
}

type bucket struct {
	*store
	location string
}

func (s *store) Open(_ context.Context, l *velerov1.BackupStorageLocation) (cluster.Bucket, error) {
	return &bucket{s, l.Name + ":"}, nil
}

func (b *bucket) List(_ context.Context, folder string) (folders, files []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.down {
		return nil, nil, engine.Errorf(engine.CodeStoreUnavailable, "list %s: connection refused", folder)
	}

	for path := range b.objects {
		rest, in := strings.CutPrefix(path, b.location+folder)
		if !in {
			continue
		}

		if name, _, deeper := strings.Cut(rest, "/"); deeper {
			folders = append(folders, name)
		} else {
			files = append(files, name)
		}
	}

	slices.Sort(folders)

	return slices.Compact(folders), files, nil
}

func (b *bucket) Get(_ context.Context, path string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	content, ok := b.objects[b.location+path]
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, cluster.ErrObjectNotFound)
	}

	return []byte(content), nil
}

func (b *bucket) PutIfAbsent(_ context.Context, path string, content []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()

	if _, ok := b.objects[b.location+path]; ok {
		return errors.New("exists")
	}

	b.objects[b.location+path] = string(content)

	return nil
}

func (b *bucket) Put(_ context.Context, path string, content []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.objects[b.location+path] = string(content)

	return nil
}

// keyring is the fingerprints of the master keys.
type keyring struct {
	fingerprint, previous string
	err                   error
}

func (k *keyring) Fingerprints(context.Context) (current, previous string, err error) {
	if k.err != nil {
		return "", "", k.err
	}

	if k.fingerprint == "" {
		return "", "", cluster.ErrKeyMissing
	}

	return k.fingerprint, k.previous, nil
}

func (k *keyring) Create(context.Context) error { k.fingerprint = "ours"; return nil }

type world struct {
	*cluster.Cluster
	repos  *cluster.Repositories
	client client.Client
	tasks  *tasktest.Fake
	clock  *clocktesting.FakeClock
	store  *store
	keys   *keyring
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
		WithStatusSubresource(&v1alpha1.VolumeBackup{}, &v1alpha1.VolumeRestore{}, &v1alpha1.SnapshotDeletion{}, &v1alpha1.Repository{}).
		WithIndex(&corev1.Event{}, "involvedObject.uid", func(o client.Object) []string { return []string{string(o.(*corev1.Event).InvolvedObject.UID)} }).
		Build()
	clk := clocktesting.NewFakeClock(start)

	m, err := metrics.New(prometheus.NewRegistry())
	require.NoError(t, err)

	w := &world{client: c, tasks: tasktest.New(clk.Now), clock: clk, store: &store{objects: map[string]string{}}, keys: &keyring{fingerprint: "ours"}}
	w.Cluster = &cluster.Cluster{
		Namespace: veleroNS, Client: c, Direct: c, Staging: c, Pods: podlist.New(c, &hasty{}), Tasks: w.tasks, Buckets: w.store, Keys: w.keys,
		NewID:   func() (string, error) { return idA, nil },
		NewSeed: func() string { return "seed" },
		Beats:   cluster.NewBeats(c, veleroNS, clk), Events: record.NewFakeRecorder(1000), Metrics: m, Clock: clk, Bounds: state.DefaultBounds(),
	}
	w.repos = cluster.NewRepositories(w.Cluster, cluster.NewChanges())

	return w
}

func req(name string) ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Namespace: veleroNS, Name: name}}
}

func location(name string) *velerov1.BackupStorageLocation {
	return &velerov1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: name}}
}

func (w *world) key(t *testing.T, location, namespace, id, fingerprint string) {
	t.Helper()

	path, err := contract.KeyPath(namespace, id)
	require.NoError(t, err)

	content, err := json.Marshal(contract.KeyFile{Version: 1, Fingerprint: fingerprint})
	require.NoError(t, err)

	w.store.objects[location+":"+path] = string(content)
}

func (w *world) made(t *testing.T, namespace, id string) {
	t.Helper()

	path, err := contract.RepositoryPath(namespace, id)
	require.NoError(t, err)

	w.store.objects["default:"+path+"kopia.repository"] = "x"
}

func (w *world) repository(t *testing.T) (v1alpha1.RepositoryStatus, time.Duration) {
	t.Helper()

	name := jobs.RepositoryName("default", "app")
	r, err := w.repos.Reconcile(t.Context(), req(name))
	require.NoError(t, err)

	var repo v1alpha1.Repository

	require.NoError(t, w.client.Get(t.Context(), req(name).NamespacedName, &repo))

	return repo.Status, r.RequeueAfter
}

func (w *world) finishRepository(f *state.Failure) {
	w.tasks.Set(cluster.RepositoryKey(jobs.RepositoryName("default", "app")), func(r *task.Run) { r.State, r.Failure = state.TaskEnded, f })
}

func TestRepositoryIsMadeFromNothing(t *testing.T) {
	t.Parallel()

	w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
	w.keys.fingerprint = ""

	_, after := w.repository(t)
	assert.Positive(t, after)
	assert.Equal(t, "ours", w.keys.fingerprint, "the master key was made")

	w.repository(t)

	path, err := contract.KeyPath("app", idA)
	require.NoError(t, err)
	assert.Contains(t, w.store.objects, "default:"+path, "the key file comes before the repository")

	status, _ := w.repository(t)
	assert.Equal(t, v1alpha1.RepositoryNew, status.Phase)

	begun := w.tasks.Begun(cluster.RepositoryKey(jobs.RepositoryName("default", "app")))
	require.Len(t, begun, 1)
	assert.True(t, begun[0].Create)
	assert.Equal(t, "seed", begun[0].Seed)
	assert.Equal(t, idA, begun[0].Repository.ID)

	w.made(t, "app", idA)
	w.finishRepository(nil)

	status, _ = w.repository(t)
	assert.Equal(t, v1alpha1.RepositoryReady, status.Phase)
	assert.Equal(t, idA, status.ID)
	assert.Equal(t, "ours", status.KeyFingerprint)
	assert.NotEmpty(t, status.Path)
}

func TestRepositoryIsFound(t *testing.T) {
	t.Parallel()

	w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
	w.key(t, "default", "app", idB, "ours")
	w.key(t, "default", "app", "cccccccccccccccccccccccccc", "ours")
	w.key(t, "default", "app", idA, "theirs")
	w.made(t, "app", idB)

	w.repository(t)
	w.finishRepository(nil)

	status, _ := w.repository(t)
	assert.Equal(t, v1alpha1.RepositoryReady, status.Phase)
	assert.Equal(t, idB, status.ID, "the smallest of our key")

	w.key(t, "default", "app", "a2aaaaaaaaaaaaaaaaaaaaaaaa", "ours")

	status, _ = w.repository(t)
	assert.Equal(t, idB, status.ID, "what is in use stays in use")
}

func TestRepositoryThatIsNotReady(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		prepare func(*testing.T, *world)
		reason  string
		tells   string
	}{
		"no key, but fingerprints": {func(t *testing.T, w *world) {
			w.keys.fingerprint = ""
			w.key(t, "default", "elsewhere", idB, "theirs")
		}, state.ReasonMasterKeyMissing, "fingerprint theirs"},
		"no key, but fingerprints in another location": {func(t *testing.T, w *world) {
			w.keys.fingerprint = ""
			w.key(t, "second", "elsewhere", idB, "theirs")
		}, state.ReasonMasterKeyMissing, "second"},
		"another key": {func(t *testing.T, w *world) {
			w.key(t, "default", "elsewhere", idB, "theirs")
		}, state.ReasonWrongKey, "kubectl replace --force -f FILE"},
		"a key that can't be read": {func(_ *testing.T, w *world) { w.keys.err = cluster.ErrKeyInvalid }, state.ReasonMasterKeyInvalid, contract.MasterKeySecret},
		"a store that is away":     {func(_ *testing.T, w *world) { w.store.down = true }, string(engine.CodeStoreUnavailable), "connection refused"},
		"a read-only location": {func(t *testing.T, w *world) {
			l := location("default")
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(l), l))
			l.Spec.AccessMode = velerov1.BackupStorageLocationAccessModeReadOnly
			require.NoError(t, w.client.Update(t.Context(), l))
		}, state.ReasonLocationReadOnly, "read-only"},
		"no such location": {func(t *testing.T, w *world) {
			require.NoError(t, w.client.Delete(t.Context(), location("default")))
		}, state.ReasonLocationNotFound, "default"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"), location("second"))
			c.prepare(t, w)
			before := len(w.store.objects)

			status, first := w.repository(t)
			assert.Equal(t, v1alpha1.RepositoryNotReady, status.Phase)
			assert.Equal(t, c.reason, status.Reason)
			assert.Contains(t, status.Message, c.tells)
			assert.Len(t, w.store.objects, before, "nothing was written")

			_, second := w.repository(t)
			assert.Equal(t, 2*first, second, "it is tried again, at growing intervals")
		})
	}
}

func TestEveryLookAtARepositoryThatIsNotReadyIsDated(t *testing.T) {
	t.Parallel()

	w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
	w.key(t, "default", "app", idB, "ours")
	w.made(t, "app", idB)
	w.store.down = true

	dated := func(want time.Time, why string) {
		t.Helper()

		status, _ := w.repository(t)
		assert.Equal(t, v1alpha1.RepositoryNotReady, status.Phase)
		require.NotNil(t, status.LastCheckedTimestamp)
		assert.True(t, want.Equal(status.LastCheckedTimestamp.Time), "%s: %s", why, status.LastCheckedTimestamp)
	}

	dated(start, "the first look")
	w.clock.Step(10 * time.Second)
	dated(start.Add(10*time.Second), "a look that finds the same")

	w.store.down = false
	w.clock.Step(10 * time.Second)
	dated(start.Add(10*time.Second), "a look whose worker is still at it")

	w.finishRepository(&state.Failure{Finding: state.Finding{Reason: "RepositoryDamaged", Message: "no format blob"}})
	dated(start.Add(20*time.Second), "a look whose worker is done")
}

func TestOnlyWhatAsksForALookWakesTheController(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		change func(*v1alpha1.Repository)
		want   bool
	}{
		"somebody asks": {func(r *v1alpha1.Repository) {
			r.Annotations = map[string]string{contract.AnnotationLookAgain: "2026-01-02T03:04:05Z"}
		}, true},
		"it is another object":      {func(r *v1alpha1.Repository) { r.UID = "another" }, true},
		"its own status":            {func(r *v1alpha1.Repository) { r.Status.Message = "new" }, false},
		"an annotation of somebody": {func(r *v1alpha1.Repository) { r.Annotations = map[string]string{"x": "y"} }, false},
	} {
		before := jobs.NewRepository(veleroNS, "default", "app")
		after := before.DeepCopy()
		c.change(after)

		assert.Equal(t, c.want, cluster.AskedAgain().Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}), name)
	}
}

func TestRepositoryThatDoesNotOpen(t *testing.T) {
	t.Parallel()

	w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
	w.key(t, "default", "app", idB, "ours")
	w.made(t, "app", idB)
	w.repository(t)
	w.finishRepository(&state.Failure{Finding: state.Finding{Reason: "RepositoryDamaged", Message: "no format blob"}})

	status, after := w.repository(t)
	assert.Equal(t, v1alpha1.RepositoryNotReady, status.Phase)
	assert.Equal(t, "RepositoryDamaged", status.Reason)
	assert.Positive(t, after)
}

func TestARepositoryIsMadeByWhoReservedItOnly(t *testing.T) {
	t.Parallel()

	begun := func(w *world) []task.Work {
		return w.tasks.Begun(cluster.RepositoryKey(jobs.RepositoryName("default", "app")))
	}

	t.Run("one that was reserved and not made is left", func(t *testing.T) {
		t.Parallel()

		w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
		w.key(t, "default", "app", idB, "ours")
		w.repository(t)
		w.repository(t)

		require.Len(t, begun(w), 1)
		assert.Equal(t, idA, begun(w)[0].Repository.ID)
		assert.Equal(t, "seed", begun(w)[0].Seed)
	})

	t.Run("a folder without a repository, too", func(t *testing.T) {
		t.Parallel()

		w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
		w.key(t, "default", "app", idB, "ours")
		w.made(t, "app", idB)
		w.repository(t)
		require.Len(t, begun(w), 1)
		assert.Empty(t, begun(w)[0].Seed, "nothing may be made there")

		w.finishRepository(&state.Failure{Finding: state.Finding{Reason: string(engine.CodeRepositoryNotFound)}})
		w.repository(t)
		w.repository(t)
		w.repository(t)
		require.Len(t, begun(w), 2)
		assert.Equal(t, idA, begun(w)[1].Repository.ID)
	})

	t.Run("who reserved it tries again, with the same seed", func(t *testing.T) {
		t.Parallel()

		w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
		seeds := 0
		w.NewSeed = func() string { seeds++; return fmt.Sprint("seed ", seeds) }

		w.repository(t)
		w.repository(t)
		w.finishRepository(&state.Failure{Finding: state.Finding{Reason: string(engine.CodeStoreUnavailable)}})
		w.repository(t)
		w.repository(t)

		require.Len(t, begun(w), 2)
		assert.Equal(t, begun(w)[0].Seed, begun(w)[1].Seed)
		assert.Equal(t, begun(w)[0].Repository, begun(w)[1].Repository)
	})
}

func lease(node string, renewed time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "estiba-node-" + node, Labels: map[string]string{contract.LabelHeartbeat: contract.HeartbeatNode}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To(node), RenewTime: ptr.To(metav1.NewMicroTime(renewed))},
	}
}

func backupJob() (*velerov1.Backup, *v1alpha1.VolumeBackup) {
	owner := &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "b", UID: "buid"}, Status: velerov1.BackupStatus{Phase: velerov1.BackupPhaseInProgress}}
	job := jobs.NewBackup(veleroNS, "n1", v1alpha1.VolumeBackupSpec{
		Backup: v1alpha1.OwnerReference{Name: "b", UID: "buid"},
		Volume: v1alpha1.VolumeReference{Kind: v1alpha1.VolumeEmptyDir, Namespace: "app", Name: "data", Pod: v1alpha1.PodReference{Name: "web-0", UID: "puid"}},
	})
	job.CreationTimestamp = metav1.NewTime(start)

	return owner, job
}

func (w *world) backup(t *testing.T, name string) (*v1alpha1.VolumeBackup, bool) {
	t.Helper()

	_, err := w.ReconcileBackup(t.Context(), req(name))
	require.NoError(t, err)

	var job v1alpha1.VolumeBackup

	err = w.client.Get(t.Context(), req(name).NamespacedName, &job)
	if apierrors.IsNotFound(err) {
		return nil, false
	}

	require.NoError(t, err)

	return &job, true
}

func TestNodeLostGoesByTheControllersClock(t *testing.T) {
	t.Parallel()

	owner, job := backupJob()
	// The node's clock is an hour behind.
	w := newWorld(t, owner, job, lease("n1", start.Add(-time.Hour)))

	got, _ := w.backup(t, job.Name)
	assert.Empty(t, got.Status.Phase)

	w.clock.Step(2*time.Minute - time.Second)

	got, _ = w.backup(t, job.Name)
	assert.Empty(t, got.Status.Phase)

	w.clock.Step(time.Second)

	got, _ = w.backup(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseFailed, got.Status.Phase)
	assert.Equal(t, state.ReasonNodeLost, got.Status.Reason)
}

func TestJobWithoutADaemon(t *testing.T) {
	t.Parallel()

	owner, job := backupJob()
	w := newWorld(t, owner, job)
	w.backup(t, job.Name)
	w.clock.Step(time.Minute)

	got, _ := w.backup(t, job.Name)
	assert.Equal(t, state.ReasonNoDaemonOnNode, got.Status.Reason)
}

func TestOwnerThatFailedCancelsItsJobs(t *testing.T) {
	t.Parallel()

	for _, phase := range []velerov1.BackupPhase{velerov1.BackupPhaseFailed, velerov1.BackupPhaseFailedValidation, velerov1.BackupPhaseDeleting} {
		owner, job := backupJob()
		owner.Status.Phase = phase
		w := newWorld(t, owner, job, lease("n1", start))

		got, _ := w.backup(t, job.Name)
		assert.True(t, got.Spec.Cancel, "%s", phase)

		why := meta.FindStatusCondition(got.Status.Conditions, state.ConditionCancel)
		require.NotNil(t, why)
		assert.Contains(t, why.Message, "Backup "+owner.Name)
		assert.Contains(t, why.Message, "velero backup create")
	}
}

// Velero loses an operation now and then where it backs up several items at a time, and the Backup ends without the job.
// Its record is in the backup, so it is finished, and that is said.
func TestJobThatVeleroLostIsFinished(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		phase   velerov1.BackupPhase
		job     func(*v1alpha1.VolumeBackup)
		reasons []string
	}{
		"of a Backup that says Completed":       {phase: velerov1.BackupPhaseCompleted, reasons: []string{state.ReasonOperationLost}},
		"of a Backup that says PartiallyFailed": {phase: velerov1.BackupPhasePartiallyFailed, reasons: []string{state.ReasonOperationLost}},
		"and that had failed unseen": {
			phase: velerov1.BackupPhaseCompleted, job: func(j *v1alpha1.VolumeBackup) { j.Status.Phase = v1alpha1.PhaseFailed },
			reasons: []string{state.ReasonVolumeMissing},
		},
		"none that Velero knows to have failed": {
			phase: velerov1.BackupPhasePartiallyFailed, job: func(j *v1alpha1.VolumeBackup) { j.Status.Phase = v1alpha1.PhaseFailed },
		},
		"none that was completed": {
			phase: velerov1.BackupPhaseCompleted, job: func(j *v1alpha1.VolumeBackup) { j.Status.Phase = v1alpha1.PhaseCompleted },
		},
		"none that Velero waits for": {phase: velerov1.BackupPhaseWaitingForPluginOperations},
		"none that Velero cancels": {
			phase: velerov1.BackupPhasePartiallyFailed, job: func(j *v1alpha1.VolumeBackup) { j.Spec.Cancel = true },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, job := backupJob()
			owner.Status.Phase = c.phase

			if c.job != nil {
				c.job(job)
			}

			w := newWorld(t, owner, job, lease("n1", start))
			canceled := job.Spec.Cancel

			for range 3 {
				got, _ := w.backup(t, job.Name)
				assert.Equal(t, canceled, got.Spec.Cancel)
			}

			var said []string

			events := w.Events.(*record.FakeRecorder).Events
			for len(events) > 0 {
				said = append(said, strings.Fields(<-events)[1])
			}

			var want []string
			for _, reason := range c.reasons {
				want = append(want, reason, reason)
			}

			assert.Equal(t, want, said, "once on the job, and once on its Backup")
		})
	}
}

func TestJobThatVeleroLostAndThatFailsIsMissing(t *testing.T) {
	t.Parallel()

	owner, job := backupJob()
	owner.Status.Phase = velerov1.BackupPhasePartiallyFailed
	w := newWorld(t, owner, job, lease("n1", start))

	got, _ := w.backup(t, job.Name)
	require.NotNil(t, meta.FindStatusCondition(got.Status.Conditions, state.ConditionOperationLost))

	got.Status.Phase, got.Status.Reason, got.Status.Message = v1alpha1.PhaseFailed, state.ReasonPodDeleted, "pod app/web-0 is being deleted"
	require.NoError(t, w.client.Status().Update(t.Context(), got))

	got, _ = w.backup(t, job.Name)
	lost := meta.FindStatusCondition(got.Status.Conditions, state.ConditionOperationLost)
	require.NotNil(t, lost)
	assert.Equal(t, state.ReasonVolumeMissing, lost.Reason)
	assert.Contains(t, lost.Message, "pod app/web-0 is being deleted")
}

func TestFinishedJobsAreRemoved(t *testing.T) {
	t.Parallel()

	owner, job := backupJob()
	at := metav1.NewTime(start)
	job.Status.Phase, job.Status.CompletionTimestamp = v1alpha1.PhaseCompleted, &at
	owner.Status.Phase = velerov1.BackupPhaseFinalizing
	w := newWorld(t, owner, job)
	w.clock.Step(6 * time.Hour)

	_, there := w.backup(t, job.Name)
	assert.True(t, there, "Velero reads it while it finalizes")

	owner.Status.Phase = velerov1.BackupPhaseCompleted
	require.NoError(t, w.client.Update(t.Context(), owner))

	_, there = w.backup(t, job.Name)
	assert.False(t, there)
}

func TestAFinishedRestoreIsKeptForAPodThatComesLateToItsGate(t *testing.T) {
	t.Parallel()

	for _, phase := range []v1alpha1.Phase{v1alpha1.PhaseCompleted, v1alpha1.PhaseFailed} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()

			owner, job := restoreInto("r")
			owner.Status.Phase = velerov1.RestorePhaseCompleted
			at := metav1.NewTime(start)
			job.Status.Phase, job.Status.CompletionTimestamp = phase, &at

			record, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: string(owner.UID)}, Jobs: map[string]string{"d": job.Name}}.Encode()
			require.NoError(t, err)

			pod := realPod("", corev1.PodPending)
			pod.Annotations = map[string]string{contract.AnnotationRestore: record}
			pod.Spec.InitContainers = []corev1.Container{{Name: contract.GateContainer}}

			w := newWorld(t, owner, job, pod)
			w.clock.Step(100 * time.Hour)

			_, err = w.ReconcileRestore(t.Context(), req(job.Name))
			require.NoError(t, err)
			require.NoError(t, w.client.Get(t.Context(), req(job.Name).NamespacedName, &v1alpha1.VolumeRestore{}), "the gate is to find it")

			pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
				Name: contract.GateContainer, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}},
			}}
			require.NoError(t, w.client.Status().Update(t.Context(), pod))

			_, err = w.ReconcileRestore(t.Context(), req(job.Name))
			require.NoError(t, err)
			assert.True(t, apierrors.IsNotFound(w.client.Get(t.Context(), req(job.Name).NamespacedName, &v1alpha1.VolumeRestore{})))
		})
	}
}

func TestBackupWithoutANodeIsRouted(t *testing.T) {
	t.Parallel()

	owner, job := backupJob()
	delete(job.Labels, contract.LabelNode)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "web-0", UID: "puid"}, Spec: corev1.PodSpec{NodeName: "n7"}}
	w := newWorld(t, owner, job, pod)

	got, _ := w.backup(t, job.Name)
	assert.Equal(t, "n7", got.Labels[contract.LabelNode])
}

func TestRestoreIsRouted(t *testing.T) {
	t.Parallel()

	job := jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{
		Restore: v1alpha1.OwnerReference{Name: "r", UID: "ruid"},
		Target: v1alpha1.VolumeReference{
			Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Name: "data", Pod: v1alpha1.PodReference{Name: "web-0"},
			Claim: &v1alpha1.ClaimReference{Name: "shared"},
		},
	})
	owner := &velerov1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "r", UID: "ruid"}, Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseInProgress}}
	w := newWorld(t, owner, job, lease("n1", start), lease("n2", start))

	get := func() *v1alpha1.VolumeRestore {
		_, err := w.ReconcileRestore(t.Context(), req(job.Name))
		require.NoError(t, err)

		var got v1alpha1.VolumeRestore

		require.NoError(t, w.client.Get(t.Context(), req(job.Name).NamespacedName, &got))

		return &got
	}

	got := get()
	assert.Equal(t, state.ReasonWaitingForPods, got.Status.Reason)
	assert.Empty(t, got.Labels[contract.LabelNode])

	note, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: "ruid"}, Jobs: map[string]string{"data": job.Name}}.Encode()
	require.NoError(t, err)

	for i, name := range []string{"web-1", "web-0"} {
		require.NoError(t, w.client.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: name, UID: types.UID(name), Annotations: map[string]string{contract.AnnotationRestore: note}},
			Spec: corev1.PodSpec{
				NodeName: fmt.Sprintf("n%d", 2-i), InitContainers: []corev1.Container{{Name: contract.GateContainer}},
				Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"}}}},
			},
			Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{Name: contract.GateContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
		}))
	}

	got = get()
	assert.Equal(t, "n1", got.Labels[contract.LabelNode])
	assert.Equal(t, v1alpha1.PhaseAccepted, got.Status.Phase)
	assert.Equal(t, &v1alpha1.PodReference{Name: "web-0", UID: "web-0"}, got.Status.Pod)
}

func TestDeletionIsTriedUntilConfirmed(t *testing.T) {
	t.Parallel()

	job := jobs.NewDeletion(veleroNS, v1alpha1.SnapshotDeletionSpec{
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: idA},
		Snapshot:   v1alpha1.SnapshotReference{Job: "vb-1", Backup: v1alpha1.OwnerReference{Name: "b", UID: "buid"}},
	})
	job.CreationTimestamp = metav1.NewTime(start)
	w := newWorld(t, job)

	get := func() v1alpha1.SnapshotDeletionStatus {
		_, err := w.ReconcileDeletion(t.Context(), req(job.Name))
		require.NoError(t, err)

		var got v1alpha1.SnapshotDeletion

		require.NoError(t, w.client.Get(t.Context(), req(job.Name).NamespacedName, &got))

		return got.Status
	}

	assert.Equal(t, state.ReasonLocationNotFound, get().Reason)
	require.NoError(t, w.client.Create(t.Context(), location("default")))
	get()
	require.Len(t, w.tasks.Begun(job.Name), 1)
	assert.Equal(t, "vb-1", w.tasks.Begun(job.Name)[0].Forget.Job)
	assert.Equal(t, map[string]string{contract.TagBackupUID: "buid", contract.TagNamespace: "app"}, w.tasks.Begun(job.Name)[0].Forget.Expect,
		"a snapshot of another backup or namespace is not forgotten, whatever job it names")

	w.tasks.Set(job.Name, func(r *task.Run) {
		r.State, r.Ran, r.Ended = state.TaskEnded, true, w.clock.Now()
		r.Failure = &state.Failure{Finding: state.Finding{Reason: "WrongKey", Message: "m"}}
	})

	status := get()
	assert.Equal(t, "WrongKey", status.Reason)
	assert.Equal(t, int32(1), status.Attempts)
	assert.False(t, status.Phase.Terminal())

	w.clock.Step(time.Minute)
	get()
	require.Len(t, w.tasks.Begun(job.Name), 2)

	w.tasks.Set(job.Name, func(r *task.Run) {
		r.State, r.Ran, r.Result.Forget = state.TaskEnded, true, &engine.ForgetResult{Deleted: 1}
	})

	status = get()
	assert.Equal(t, v1alpha1.PhaseCompleted, status.Phase)
	assert.Equal(t, int32(1), status.Deleted)
}
