package node_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestAGateOpensForNoNamesake(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		shared bool
		mutate func(*v1alpha1.VolumeRestore)
		state  contract.GateState
	}{
		"the pod that was filled": {state: contract.GateOpen},
		"another pod of its name": {mutate: func(j *v1alpha1.VolumeRestore) { j.Status.Pod.UID = "older" }, state: contract.GateFailed},
		"no pod was ever chosen":  {mutate: func(j *v1alpha1.VolumeRestore) { j.Status.Pod = nil }, state: contract.GateFailed},
		"a failure before a pod was chosen is told": {
			mutate: func(j *v1alpha1.VolumeRestore) {
				j.Status.Pod, j.Status.Phase, j.Status.Reason = nil, v1alpha1.PhaseFailed, "X"
			}, state: contract.GateFailed,
		},
		"the claim that was filled":                      {shared: true, mutate: func(j *v1alpha1.VolumeRestore) { j.Status.ClaimUID = "cuid" }, state: contract.GateOpen},
		"another claim of its name":                      {shared: true, mutate: func(j *v1alpha1.VolumeRestore) { j.Status.ClaimUID = "older" }, state: contract.GateFailed},
		"a claim that an older daemon has filled":        {shared: true, state: contract.GateOpen},
		"a claim that another pod of its name was given": {shared: true, mutate: func(j *v1alpha1.VolumeRestore) { j.Status.Pod.UID = "older" }, state: contract.GateOpen},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, pod, job := restoreScene(t)
			objects := []client.Object{owner, pod, job}

			if c.shared {
				pod, job, objects = sharedScene(t)
			}

			job.Status.Phase = v1alpha1.PhaseCompleted
			if c.mutate != nil {
				c.mutate(job)
			}

			w := newWorld(t, objects...)
			w.clock.Step(3 * time.Minute)

			gate := &slate{}

			_, err := node.NewGateKeeper(w.Node, gate).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(pod)})
			require.NoError(t, err)
			require.Len(t, gate.outcomes, 1)
			assert.Equal(t, c.state, gate.outcomes[0].State)
		})
	}
}

func TestARestoreKeepsWhichClaimItFills(t *testing.T) {
	t.Parallel()

	_, job, objects := sharedScene(t)
	w := newWorld(t, objects...)

	got := w.restore(t, job.Name)
	assert.Equal(t, "cuid", string(got.Status.ClaimUID))

	// The claim is made anew before there is a slot.
	var claim corev1.PersistentVolumeClaim

	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: "app", Name: "data-web-0"}, &claim))
	require.NoError(t, w.client.Delete(t.Context(), &claim))

	claim.UID, claim.ResourceVersion = "newer", ""
	require.NoError(t, w.client.Create(t.Context(), &claim))

	_, err := w.tasks.Begun(job.Name)[0].OpenVolume(t.Context())

	var blocked *task.BlockedError

	require.ErrorAs(t, err, &blocked)
	assert.Equal(t, state.ReasonVolumeMismatch, blocked.Finding.Reason)
	assert.Contains(t, blocked.Error(), "replaced")

	w.tasks.Set(job.Name, func(r *task.Run) {
		r.State, r.Ran, r.Result.Restore = state.TaskEnded, true, &engine.RestoreResult{SnapshotID: "k1"}
	})
	assert.Equal(t, v1alpha1.PhaseCompleted, w.restore(t, job.Name).Status.Phase)
}
