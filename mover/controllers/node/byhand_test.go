package node_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestAJobMadeByHandDoesNoHarm(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*v1alpha1.VolumeRestore){
		"no pod was chosen":          func(j *v1alpha1.VolumeRestore) { j.Status.Pod = nil },
		"a claim that has no name":   func(j *v1alpha1.VolumeRestore) { j.Spec.Target.Kind = v1alpha1.VolumePersistentVolumeClaim },
		"an emptyDir with a claim":   func(j *v1alpha1.VolumeRestore) { j.Spec.Target.Claim = &v1alpha1.ClaimReference{Name: "x"} },
		"no target at all":           func(j *v1alpha1.VolumeRestore) { j.Spec.Target = v1alpha1.VolumeReference{} },
		"a status that is all empty": func(j *v1alpha1.VolumeRestore) { j.Status = v1alpha1.VolumeRestoreStatus{} },
		"progress beyond its total": func(j *v1alpha1.VolumeRestore) {
			j.Status.Phase, j.Status.Progress = v1alpha1.PhaseInProgress, v1alpha1.Progress{BytesDone: -1, TotalBytes: 1 << 62}
		},
	} {
		for _, run := range []state.TaskState{state.TaskNone, state.TaskRunning, state.TaskEnded} {
			owner, pod, job := restoreScene(t)
			change(job)

			w := newWorld(t, owner, pod, job)
			if run != state.TaskNone {
				w.tasks.Set(job.Name, func(r *task.Run) { r.UID, r.State, r.Ran = job.UID, run, true })
			}

			require.NotPanics(t, func() { w.restore(t, job.Name) }, name)

			_, err := node.NewGateKeeper(w.Node, &slate{}).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(pod)})
			require.NoError(t, err, name)
		}
	}
}

func TestABackupMadeByHandDoesNoHarm(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*v1alpha1.VolumeBackup){
		"a claim that has no name": func(j *v1alpha1.VolumeBackup) { j.Spec.Volume.Claim = nil },
		"no volume at all":         func(j *v1alpha1.VolumeBackup) { j.Spec.Volume = v1alpha1.VolumeReference{} },
	} {
		s := newScene()
		change(s.job)
		w := newWorld(t, s.objects()...)

		job := w.backup(t, s.job.Name)
		assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase, name)
	}
}
