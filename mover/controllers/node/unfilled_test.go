package node_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

func restoreOfScene(s *scene, phase v1alpha1.Phase) *v1alpha1.VolumeRestore {
	r := &v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "vr-1"}}
	r.Spec.Target = v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: s.claim.Name}}
	r.Status.Phase = phase

	return r
}

func TestWhatARestoreHasNotFilledIsNotRead(t *testing.T) {
	t.Parallel()

	mark := func(s *scene) { s.claim.Labels = map[string]string{contract.LabelUnfilled: "vr-1"} }
	gate := func(s *scene) {
		s.pod.Spec.InitContainers = []corev1.Container{{Name: contract.GateContainer}}
		s.pod.Status.Phase = corev1.PodPending
		s.pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: contract.GateContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	}

	for name, tt := range map[string]struct {
		change  func(s *scene)
		restore v1alpha1.Phase
		waits   bool
		says    string
	}{
		"its restore is under way":    {change: mark, restore: v1alpha1.PhaseInProgress, says: "vr-1, which fills it, is InProgress"},
		"its restore has failed":      {change: mark, restore: v1alpha1.PhaseFailed, says: "label pvc data-web-0 estiba.dev/unfilled-"},
		"its restore is gone":         {change: mark, says: "is gone"},
		"nobody has said it's filled": {change: mark, restore: v1alpha1.PhaseCompleted, waits: true, says: "waits for the controller"},
		"its pod is at the gate":      {change: gate, says: "waits for a restore"},
		"its pod is held from the nodes": {change: func(s *scene) {
			s.pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: contract.SchedulingGate}}
		}, says: "waits for a restore"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newScene()
			tt.change(s)

			objects := s.objects()
			if tt.restore != "" {
				objects = append(objects, restoreOfScene(s, tt.restore))
			}

			w := newWorld(t, objects...)

			job := w.backup(t, s.job.Name)
			assert.Equal(t, state.ReasonRestoreNotDone, job.Status.Reason)
			assert.Contains(t, job.Status.Message, tt.says)
			assert.Equal(t, !tt.waits, job.Status.Phase == v1alpha1.PhaseFailed)
			assert.Empty(t, w.tasks.Begun(s.job.Name))
		})
	}
}

func TestARestoreThatBeginsWhileItsClaimIsReadSpoilsTheBackup(t *testing.T) {
	t.Parallel()

	for name, at := range map[string]state.TaskState{"the worker runs": state.TaskRunning, "the worker is done": state.TaskEnded} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newScene()
			w := newWorld(t, s.objects()...)
			w.backup(t, s.job.Name)

			var claim corev1.PersistentVolumeClaim
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(s.claim), &claim))
			claim.Labels = map[string]string{contract.LabelUnfilled: "vr-1"}
			require.NoError(t, w.client.Update(t.Context(), &claim))

			w.tasks.Set(s.job.Name, func(r *task.Run) {
				r.State, r.Ran, r.Ended = at, true, w.clock.Now()
				r.Result.Backup = &engine.BackupResult{SnapshotID: "k1"}
			})

			job := w.backup(t, s.job.Name)
			assert.Equal(t, state.ReasonRestoreNotDone, job.Status.Reason)
			assert.Contains(t, job.Status.Message, "vr-1 began to fill")

			// By now the restore may have ended, too, and the worker with a result.
			claim.Labels = nil
			require.NoError(t, w.client.Update(t.Context(), &claim))
			w.tasks.Set(s.job.Name, func(r *task.Run) { r.State = state.TaskEnded })

			job = w.backup(t, s.job.Name)
			assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
			assert.Empty(t, job.Status.SnapshotID)
		})
	}
}
