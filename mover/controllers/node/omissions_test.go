package node_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestWhatAJobLeftOutIsSaid(t *testing.T) {
	t.Parallel()

	socket := engine.Omission{Reason: engine.OmittedSocket, Count: 2, Examples: []string{`"s"`}}
	link := engine.Omission{Reason: engine.OmittedHardLink, Count: 2, Examples: []string{`"a"`, `"b"`}}
	later := engine.Omission{Reason: "OfALaterRelease", Count: 1}

	for name, c := range map[string]struct {
		omissions []engine.Omission
		says      string
	}{
		"nothing":                          {nil, ""},
		"what nobody misses":               {[]engine.Omission{socket}, ""},
		"what somebody may miss":           {[]engine.Omission{link, socket}, `2 HardLink ("a", "b")`},
		"what only a later release counts": {[]engine.Omission{later}, "1 OfALaterRelease"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newScene()
			w := newWorld(t, s.objects()...)
			w.backup(t, s.job.Name)
			w.tasks.Set(s.job.Name, func(r *task.Run) {
				r.State, r.Ran = state.TaskEnded, true
				r.Result.Backup = &engine.BackupResult{SnapshotID: "k1", Summary: engine.Summary{Omissions: c.omissions}}
			})

			job := w.backup(t, s.job.Name)
			assert.Equal(t, v1alpha1.PhaseCompleted, job.Status.Phase)
			assert.Equal(t, state.ReasonCompleted, job.Status.Reason)
			assert.Len(t, job.Status.Summary.Omissions, len(c.omissions))

			said := w.said()
			condition := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionNothingOmitted)
			require.NotNil(t, condition)

			if c.says == "" {
				assert.True(t, meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionNothingOmitted))
				assert.NotContains(t, said, "Warning")
				assert.Empty(t, jobs.BackupProgress(job).Omitted)

				return
			}

			assert.True(t, meta.IsStatusConditionFalse(job.Status.Conditions, v1alpha1.ConditionNothingOmitted))
			assert.Equal(t, "not kept: "+c.says, condition.Message)
			assert.Equal(t, condition.Message, jobs.BackupProgress(job).Omitted)
			assert.Equal(t, 2, strings.Count(said, "Warning Omissions"), "%s: the job's and the claim's", said)
			assert.Contains(t, said, c.says)
		})
	}
}

func TestWhatARestoreDidNotBringIsSaid(t *testing.T) {
	t.Parallel()

	link := engine.Omission{Reason: engine.OmittedHardLink, Count: 2, Examples: []string{`"a"`, `"b"`}}

	for name, c := range map[string]struct {
		result engine.RestoreResult
		want   string
	}{
		"what the snapshot lacks":  {engine.RestoreResult{SnapshotID: "k1", Summary: engine.Summary{Omissions: []engine.Omission{link}}}, `not restored: 2 HardLink ("a", "b")`},
		"nothing is lacking":       {engine.RestoreResult{SnapshotID: "k1"}, ""},
		"nothing was there at all": {engine.RestoreResult{Missing: "no snapshot"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, pod, restore := restoreScene(t)
			w := newWorld(t, owner, pod, restore)
			w.restore(t, restore.Name)
			w.tasks.Set(restore.Name, func(r *task.Run) {
				r.State, r.Ran, r.Result.Restore = state.TaskEnded, true, &c.result
			})

			job := w.restore(t, restore.Name)
			assert.Equal(t, v1alpha1.PhaseCompleted, job.Status.Phase, job.Status.Message)
			assert.Equal(t, c.want, jobs.RestoreProgress(job).Omitted)
			assert.Equal(t, c.want != "", strings.Contains(w.said(), "Warning Omissions"))
			assert.Equal(t, c.result.Missing == "", meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionNothingOmitted) != nil)
		})
	}
}

// said returns the events so far, one a line.
func (w *world) said() string {
	var b strings.Builder

	for {
		select {
		case e := <-w.events.Events:
			b.WriteString(e + "\n")
		default:
			return b.String()
		}
	}
}
