package cluster_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/cluster"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// rotationWorld has a ready repository of namespace app, and a new master key.
func rotationWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()

	w := newWorld(t, append(objects, jobs.NewRepository(veleroNS, "default", "app"), location("default"))...)
	w.key(t, "default", "app", idB, "ours")
	w.made(t, "app", idB)
	w.look(t, "app")
	w.end("app", nil)
	require.Equal(t, state.ReasonKeyCurrent, w.look(t, "app").Reason)

	w.keys.fingerprint, w.keys.previous = "new", "ours"

	return w
}

func nameOf(namespace string) string { return jobs.RepositoryName("default", namespace) }

// look looks at the repository of a namespace, and returns what is said of its key.
func (w *world) look(t *testing.T, namespace string) metav1.Condition {
	t.Helper()

	_, err := w.repos.Reconcile(t.Context(), req(nameOf(namespace)))
	require.NoError(t, err)

	c := meta.FindStatusCondition(w.status(t, namespace).Conditions, v1alpha1.ConditionKeyCurrent)
	if c == nil {
		return metav1.Condition{}
	}

	return *c
}

func (w *world) status(t *testing.T, namespace string) v1alpha1.RepositoryStatus {
	t.Helper()

	var repo v1alpha1.Repository

	require.NoError(t, w.client.Get(t.Context(), req(nameOf(namespace)).NamespacedName, &repo))

	return repo.Status
}

func (w *world) end(namespace string, f *state.Failure) {
	w.tasks.Set(cluster.RepositoryKey(nameOf(namespace)), func(r *task.Run) { r.State, r.Failure = state.TaskEnded, f })
}

func (w *world) begun(namespace string) []task.Work {
	return w.tasks.Begun(cluster.RepositoryKey(nameOf(namespace)))
}

func (w *world) keyFile(t *testing.T, namespace, id string) string {
	t.Helper()

	path, err := contract.KeyPath(namespace, id)
	require.NoError(t, err)

	return w.store.objects["default:"+path]
}

func TestARepositoryIsBroughtToTheNewKey(t *testing.T) {
	t.Parallel()

	w := rotationWorld(t)

	c := w.look(t, "app")
	assert.Equal(t, metav1.ConditionFalse, c.Status)
	assert.Equal(t, state.ReasonKeyRotating, c.Reason)

	begun := w.begun("app")
	require.Len(t, begun, 2)
	assert.True(t, begun[1].RotateKey)
	assert.Equal(t, idB, begun[1].Repository.ID)

	status := w.status(t, "app")
	assert.Equal(t, v1alpha1.RepositoryReady, status.Phase, "backups go on meanwhile")
	assert.Equal(t, "ours", status.KeyFingerprint)
	assert.Contains(t, w.keyFile(t, "app", idB), "ours", "not before the worker has ended")

	w.end("app", nil)
	w.look(t, "app")
	assert.Contains(t, w.keyFile(t, "app", idB), `"fingerprint":"new"`)

	c = w.look(t, "app")
	assert.Equal(t, metav1.ConditionTrue, c.Status)
	assert.Equal(t, "new", w.status(t, "app").KeyFingerprint)
	assert.Len(t, w.begun("app"), 2)
}

func TestARotationThatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()

	w := rotationWorld(t)
	w.look(t, "app")
	w.end("app", &state.Failure{Finding: state.Finding{Reason: "StoreUnavailable", Message: "refused"}})

	c := w.look(t, "app")
	assert.Equal(t, state.ReasonKeyRotationFailed, c.Reason)
	assert.Contains(t, c.Message, "StoreUnavailable: refused")
	assert.Contains(t, w.keyFile(t, "app", idB), "ours")

	w.look(t, "app")
	assert.Len(t, w.begun("app"), 3)
}

func TestARotationWaitsForTheRepositorysJobs(t *testing.T) {
	t.Parallel()

	at := v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: idB}
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: veleroNS, Name: name} }

	for name, job := range map[string]client.Object{
		"a backup":   &v1alpha1.VolumeBackup{ObjectMeta: named("job"), Spec: v1alpha1.VolumeBackupSpec{Repository: at}},
		"a restore":  &v1alpha1.VolumeRestore{ObjectMeta: named("job"), Spec: v1alpha1.VolumeRestoreSpec{Repository: at}},
		"a deletion": &v1alpha1.SnapshotDeletion{ObjectMeta: named("job"), Spec: v1alpha1.SnapshotDeletionSpec{Repository: at}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			other := at
			other.ID = idA

			w := rotationWorld(t, job, &v1alpha1.VolumeBackup{ObjectMeta: named("other"), Spec: v1alpha1.VolumeBackupSpec{Repository: other}})

			c := w.look(t, "app")
			assert.Equal(t, state.ReasonKeyRotationWaits, c.Reason)
			assert.Contains(t, c.Message, " job works")
			assert.Len(t, w.begun("app"), 1)

			require.NoError(t, w.client.Delete(t.Context(), job))
			assert.Equal(t, state.ReasonKeyRotating, w.look(t, "app").Reason)
		})
	}
}

func TestRepositoriesAreBroughtOverOneAtATime(t *testing.T) {
	t.Parallel()

	w := rotationWorld(t, jobs.NewRepository(veleroNS, "default", "other"))
	w.key(t, "default", "other", idA, "ours")
	w.made(t, "other", idA)
	w.look(t, "other")
	w.end("other", nil)

	assert.Equal(t, state.ReasonKeyRotating, w.look(t, "app").Reason)

	c := w.look(t, "other")
	assert.Equal(t, state.ReasonKeyRotationWaits, c.Reason)
	assert.Contains(t, c.Message, nameOf("app"))

	w.end("app", nil)
	w.look(t, "app")
	assert.Equal(t, state.ReasonKeyRotating, w.look(t, "other").Reason)

	// One that can't be looked at any more keeps nobody waiting.
	require.NoError(t, w.client.Delete(t.Context(), jobs.NewRepository(veleroNS, "default", "other")))
	_, err := w.repos.Reconcile(t.Context(), req(nameOf("other")))
	require.NoError(t, err)

	w.key(t, "default", "app", idB, "ours")
	assert.Equal(t, state.ReasonKeyRotating, w.look(t, "app").Reason)
}

func TestAReadOnlyLocationStaysUnderThePreviousKey(t *testing.T) {
	t.Parallel()

	w := rotationWorld(t)

	l := location("default")
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(l), l))
	l.Spec.AccessMode = velerov1.BackupStorageLocationAccessModeReadOnly
	require.NoError(t, w.client.Update(t.Context(), l))

	c := w.look(t, "app")
	assert.Equal(t, metav1.ConditionFalse, c.Status)
	assert.Equal(t, state.ReasonLocationReadOnly, c.Reason)
	assert.Equal(t, v1alpha1.RepositoryReady, w.status(t, "app").Phase, "it is read with the previous key")
	assert.Len(t, w.begun("app"), 1)
}

func TestAllRepositoriesOfTheLocationAreBroughtOver(t *testing.T) {
	t.Parallel()

	const idC = "cccccccccccccccccccccccccc"

	w := rotationWorld(t)
	w.key(t, "default", "app", idC, "ours") // another one of the namespace, not in use
	w.made(t, "app", idC)
	w.key(t, "default", "gone", idA, "ours") // of a namespace that this cluster does not know
	w.made(t, "gone", idA)
	w.key(t, "default", "unmade", idA, "ours")
	w.key(t, "default", "foreign", idA, "theirs")
	w.made(t, "foreign", idA)

	for _, id := range []string{idB, idC} {
		assert.Equal(t, state.ReasonKeyRotating, w.look(t, "app").Reason)
		assert.Equal(t, id, w.begun("app")[len(w.begun("app"))-1].Repository.ID)
		w.end("app", nil)
		w.look(t, "app")
	}

	assert.Equal(t, metav1.ConditionTrue, w.look(t, "app").Status)

	var list v1alpha1.RepositoryList

	require.NoError(t, w.client.List(t.Context(), &list))

	var names []string
	for _, r := range list.Items {
		names = append(names, r.Name)
	}

	assert.ElementsMatch(t, []string{nameOf("app"), nameOf("gone")}, names)

	w.look(t, "gone")
	w.end("gone", nil)
	assert.Equal(t, state.ReasonKeyRotating, w.look(t, "gone").Reason)
}

func TestARepositoryUnderNeitherKeyIsRefused(t *testing.T) {
	t.Parallel()

	w := newWorld(t, jobs.NewRepository(veleroNS, "default", "app"), location("default"))
	w.keys.previous = "before"
	w.key(t, "default", "app", idB, "theirs")
	w.made(t, "app", idB)
	w.look(t, "app")

	assert.Equal(t, string(engine.CodeWrongKey), w.status(t, "app").Reason)
	assert.Empty(t, w.begun("app"))
}
