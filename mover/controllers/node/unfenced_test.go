package node_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestAWorkerWithoutAFenceIsSaid(t *testing.T) {
	t.Parallel()

	const detail = "no Landlock: function not implemented; no openat2: function not implemented"

	for name, test := range map[string]struct {
		missing []string
		status  metav1.ConditionStatus
		reason  string
		counted map[string]float64
	}{
		"all are there":   {status: metav1.ConditionTrue, reason: "AllFences", counted: map[string]float64{}},
		"two are missing": {[]string{"Landlock", "Openat2"}, metav1.ConditionFalse, "FenceMissing", map[string]float64{"Landlock": 1, "Openat2": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newScene()
			w := newWorld(t, s.objects()...)
			w.backup(t, s.job.Name)
			w.tasks.Set(s.job.Name, func(r *task.Run) {
				r.State, r.Ran = state.TaskRunning, true
				r.Fences = &task.Fences{Missing: test.missing, Detail: detail}
			})

			job := w.backup(t, s.job.Name)
			w.backup(t, s.job.Name) // It is said once.

			c := meta.FindStatusCondition(job.Status.Conditions, state.ConditionFenced)
			require.NotNil(t, c)
			assert.Equal(t, test.status, c.Status)
			assert.Equal(t, test.reason, c.Reason)
			assert.Equal(t, detail, c.Message)
			assert.Equal(t, test.counted, w.counted(t, "estiba_workers_without_fence_total"))

			events := 0

			for len(w.events.Events) > 0 {
				if e := <-w.events.Events; assert.ObjectsAreEqual("Warning FenceMissing "+detail, e) {
					events++
				}
			}

			assert.Equal(t, min(len(test.missing), 1), events)
		})
	}
}

// counted returns a counter's values by their only label.
func (w *world) counted(t *testing.T, name string) map[string]float64 {
	t.Helper()

	families, err := w.registry.Gather()
	require.NoError(t, err)

	values := map[string]float64{}

	for _, f := range families {
		if f.GetName() != name {
			continue
		}

		for _, m := range f.GetMetric() {
			values[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}

	return values
}
