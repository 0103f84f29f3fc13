package node_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestARestoreAsksForWhatItsSpecSays(t *testing.T) {
	t.Parallel()

	taken := metav1.NewTime(start.Add(-time.Hour))

	owner, pod, job := restoreScene(t)
	job.Spec.ExistingData, job.Spec.OnMissingSnapshot = v1alpha1.ExistingMirror, v1alpha1.MissingPrevious
	job.Spec.Previous = &v1alpha1.PreviousSnapshot{Source: "/deployment/web/data", Before: taken}
	w := newWorld(t, owner, pod, job)
	w.restore(t, job.Name)

	r := w.tasks.Begun(job.Name)[0].Restore
	assert.Equal(t, engine.ExistingMirror, r.Existing)
	assert.Equal(t, engine.MissingPrevious, r.OnMissing)
	assert.Equal(t, "volume data of pod app/web-0", r.Description)
	assert.False(t, r.Resumed)
	assert.Empty(t, r.Begun)
	assert.NotEmpty(t, r.Expect)

	// Never those of another namespace, whatever the spec says.
	assert.Equal(t, "app", r.Previous.Host)
	assert.Equal(t, map[string]string{contract.TagNamespace: "app"}, r.Previous.Expect)
	assert.Equal(t, "/deployment/web/data", r.Previous.Path)
	assert.True(t, taken.Time.Equal(r.Previous.Before))
}

func TestThatARestoreWritesIsWrittenDownBefore(t *testing.T) {
	t.Parallel()

	owner, pod, job := restoreScene(t)
	w := newWorld(t, owner, pod, job)
	w.restore(t, job.Name)

	begun := w.tasks.Begun(job.Name)[0]
	require.NoError(t, begun.BeforeWrite(t.Context(), "k1"))

	var got v1alpha1.VolumeRestore
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(job), &got))
	require.NotNil(t, got.Status.WritingSince)
	assert.Equal(t, "k1", got.Status.SnapshotID)

	first := got.Status.WritingSince.Time

	t.Run("and stays when it is said again", func(t *testing.T) {
		require.NoError(t, begun.BeforeWrite(t.Context(), "k1"))
		require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(job), &got))
		assert.True(t, first.Equal(got.Status.WritingSince.Time))
	})

	t.Run("and the next run of the job knows", func(t *testing.T) {
		w.tasks.End(job.Name, task.Forget)
		w.restore(t, job.Name)

		all := w.tasks.Begun(job.Name)
		assert.True(t, all[len(all)-1].Restore.Resumed)
		assert.Equal(t, "k1", all[len(all)-1].Restore.Begun)
	})
}

func TestARestoreMustNotWrite(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(t *testing.T, w *world, job *v1alpha1.VolumeRestore){
		"when its job is gone": func(t *testing.T, w *world, job *v1alpha1.VolumeRestore) {
			require.NoError(t, w.client.Delete(t.Context(), job))
		},
		"when its job was taken from the node": func(t *testing.T, w *world, job *v1alpha1.VolumeRestore) {
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(job), job))
			delete(job.Labels, contract.LabelNode)
			require.NoError(t, w.client.Update(t.Context(), job))
		},
		"when its job goes through another pod by now": func(t *testing.T, w *world, job *v1alpha1.VolumeRestore) {
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(job), job))
			job.Status.Pod = &v1alpha1.PodReference{Name: "web-1", UID: "another"}
			require.NoError(t, w.client.Status().Update(t.Context(), job))
		},
		"when its job has ended": func(t *testing.T, w *world, job *v1alpha1.VolumeRestore) {
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(job), job))
			job.Status.Phase = v1alpha1.PhaseFailed
			require.NoError(t, w.client.Status().Update(t.Context(), job))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, pod, job := restoreScene(t)
			w := newWorld(t, owner, pod, job)
			w.restore(t, job.Name)
			change(t, w, job)

			var blocked *task.BlockedError

			require.ErrorAs(t, w.tasks.Begun(job.Name)[0].BeforeWrite(t.Context(), "k1"), &blocked)
			assert.False(t, blocked.NotYet)
		})
	}
}

func TestARestoreWithoutItsSnapshotSaysWhatItDid(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		result engine.RestoreResult
		reason string
		words  []string
	}{
		"nothing": {
			engine.RestoreResult{Missing: "the repository has no finished snapshot of job vb-1"},
			state.ReasonLeftEmpty,
			[]string{"vb-1", "volume data of pod app/web-0 was left as it is"},
		},
		"what is kept": {
			engine.RestoreResult{Kept: []string{`"db"`, `"wal"`}},
			state.ReasonDataKept,
			[]string{`"db", "wal"`, "volume data of pod app/web-0 holds data", "left as it is"},
		},
		"what could not be restored": {
			engine.RestoreResult{SnapshotID: "k1", LeftOut: 6, Summary: engine.Summary{Omissions: []engine.Omission{
				{Reason: engine.OmittedDamaged, Count: 5, Examples: []string{`"a"`, `"b"`, `"c"`, `"d"`}},
				{Reason: engine.OmittedSocket, Count: 1, Examples: []string{`"s"`}},
				{Reason: engine.OmittedUnwritable, Count: 1, Examples: []string{`"e"`}},
			}}},
			state.ReasonPartlyRestored,
			[]string{`6 entries could not be restored and were left out: "a", "b", "c" (Damaged); "e" (Unwritable)`},
		},
		"an older one": {
			engine.RestoreResult{SnapshotID: "k0", Missing: "the repository has no finished snapshot of job vb-1", Instead: &engine.Snapshot{
				ID: "k0", Time: start, Tags: map[string]string{contract.TagBackup: "the-day-before"},
			}},
			state.ReasonPreviousRestored,
			[]string{"vb-1", "k0", start.UTC().Format(time.RFC3339), "the-day-before"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, pod, job := restoreScene(t)
			w := newWorld(t, owner, pod, job)
			w.restore(t, job.Name)
			w.tasks.Set(job.Name, func(r *task.Run) {
				r.State, r.Ran = state.TaskEnded, true
				r.Result.Restore = &test.result
			})

			s := w.restore(t, job.Name).Status
			assert.Equal(t, v1alpha1.PhaseCompleted, s.Phase)
			assert.Equal(t, test.reason, s.Reason)
			assert.Equal(t, test.result.SnapshotID, s.SnapshotID)
			assert.Equal(t, test.result.Instead != nil, s.SnapshotTimestamp != nil)
			require.NotEmpty(t, s.Conditions)
			assert.Equal(t, test.reason, s.Conditions[0].Reason)

			for _, word := range test.words {
				assert.Contains(t, s.Message, word)
			}
		})
	}
}
