package node_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/state"
)

// stagedScene is a scene in which the claim is mounted by the job's staging pod.
func stagedScene() *scene {
	s := newScene()
	s.job.Spec.Volume.Pod, s.job.Spec.Volume.Name = v1alpha1.PodReference{}, ""
	s.pod.Name = contract.StagingPodName(s.job.Name)
	s.pod.Labels = map[string]string{contract.LabelStaging: s.job.Name}
	// What is being deleted must have a reason to be there still.
	s.pod.Finalizers = []string{"estiba.test/kept"}
	s.pod.Spec.Volumes[0].Name = contract.StagingVolume
	s.pod.Spec.Containers = []corev1.Container{{
		Name: contract.StagingContainer, Command: []string{contract.GateCommand, contract.StagingHold},
		VolumeMounts: []corev1.VolumeMount{{Name: contract.StagingVolume, ReadOnly: true}},
	}}
	s.job.Status.Pod = &v1alpha1.PodReference{Name: s.pod.Name, UID: s.pod.UID}

	return s
}

func TestAJobWhoseStagingPodIsTakenAwayIsLeftToTheController(t *testing.T) {
	t.Parallel()

	remove := func(t *testing.T, w *world, pod *corev1.Pod) {
		pod.Finalizers = nil
		require.NoError(t, w.client.Update(t.Context(), pod))
		require.NoError(t, w.client.Delete(t.Context(), pod))
	}

	for name, c := range map[string]struct {
		run    state.TaskState
		failed bool
		lose   func(t *testing.T, w *world, pod *corev1.Pod)

		attempts int32
		kept     bool
	}{
		"it is being deleted, and the worker runs": {
			run: state.TaskRunning, lose: func(t *testing.T, w *world, pod *corev1.Pod) { require.NoError(t, w.client.Delete(t.Context(), pod)) },
		},
		"it is gone, and the worker runs":   {run: state.TaskRunning, lose: remove},
		"it is gone, and the worker queues": {run: state.TaskQueued, lose: remove},
		"it is gone, and the worker failed": {run: state.TaskEnded, failed: true, lose: remove, attempts: 1},
		"it was evicted, and the worker runs": {run: state.TaskRunning, lose: func(t *testing.T, w *world, pod *corev1.Pod) {
			pod.Status.Phase = corev1.PodFailed
			require.NoError(t, w.client.Status().Update(t.Context(), pod))
		}},
		"it is gone, and the worker was done": {run: state.TaskEnded, lose: remove, attempts: 1, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := stagedScene()
			w := newWorld(t, s.objects()...)
			w.backup(t, s.job.Name)
			w.tasks.Set(s.job.Name, func(r *task.Run) {
				r.State, r.Ran, r.Ended = c.run, c.run != state.TaskQueued, w.clock.Now()
				if c.failed {
					r.Failure = &state.Failure{Finding: state.Finding{Reason: "StoreUnavailable"}, Retryable: true}
				}
			})

			if !c.kept {
				w.backup(t, s.job.Name)
			}

			var pod corev1.Pod
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(s.pod), &pod))
			c.lose(t, w, &pod)

			job := w.backup(t, s.job.Name)
			if c.kept {
				assert.Equal(t, v1alpha1.PhaseCompleted, job.Status.Phase)
				return
			}

			assert.Equal(t, state.ReasonStagingLost, job.Status.Reason, job.Status.Message)
			assert.Contains(t, job.Status.Message, "another one is made")

			if c.run != state.TaskEnded {
				assert.Contains(t, w.tasks.Ended(s.job.Name), task.Abort, "the volume is let go at once")
			}

			// The run has ended by now.
			job = w.backup(t, s.job.Name)
			assert.Equal(t, state.ReasonStagingLost, job.Status.Reason, job.Status.Message)
			assert.False(t, job.Status.Phase.Terminal())
			assert.Equal(t, c.attempts, job.Status.Attempts)
			assert.Len(t, w.tasks.Begun(s.job.Name), 1)
		})
	}
}
