package state_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestSpoiled(t *testing.T) {
	t.Parallel()

	const (
		claim     = v1alpha1.VolumePersistentVolumeClaim
		ephemeral = v1alpha1.VolumeEmptyDir
	)

	late := func(p *state.TargetPod) { p.Created = created.Add(2 * time.Minute) }

	for name, c := range map[string]struct {
		kind   v1alpha1.VolumeKind
		pods   []state.TargetPod
		reason string
	}{
		"all at their gates":                              {kind: claim, pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateAhead), late)}},
		"a pod without a gate":                            {kind: claim, pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateNone), late)}, reason: state.ReasonUngatedPod},
		"one that is held back":                           {kind: claim, pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateHeld), unscheduled, late)}},
		"one that is on its way out again":                {kind: claim, pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateNone), late, deleting)}, reason: state.ReasonUngatedPod},
		"one that has ended again":                        {kind: claim, pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateNone), late, finished)}, reason: state.ReasonUngatedPod},
		"one that had ended before":                       {kind: claim, pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateNone), finished)}},
		"one that left its gate":                          {kind: claim, pods: []state.TargetPod{pod("a", gate(state.GateBehind))}, reason: state.ReasonGatePassed},
		"a namesake has an ephemeral volume of its own":   {kind: ephemeral, pods: []state.TargetPod{pod("b", gate(state.GateNone))}},
		"the pod of an ephemeral volume that left a gate": {kind: ephemeral, pods: []state.TargetPod{pod("a", gate(state.GateBehind))}, reason: state.ReasonGatePassed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := restoreOf(c.kind)
			at := metav1.NewTime(created.Add(time.Minute))
			job.Status.StartTimestamp, job.Status.Pod = &at, &v1alpha1.PodReference{Name: "a", UID: "uid-a"}

			f := state.Spoiled(job, c.pods)
			if c.reason == "" {
				assert.Nil(t, f)
				return
			}

			require.NotNil(t, f)
			assert.Equal(t, c.reason, f.Reason)
		})
	}
}

func TestASpoiledRestoreIsNeverCompleted(t *testing.T) {
	t.Parallel()

	spoiled := &state.Finding{Reason: state.ReasonUngatedPod, Message: "pod b"}
	away := &state.Finding{Reason: state.ReasonAPIUnavailable, Message: "refused"}
	running := state.Task{State: state.TaskRunning, Attempt: 1}

	for name, c := range map[string]struct {
		mutate func(*v1alpha1.VolumeRestore)
		seen   state.Observed
		phase  v1alpha1.Phase
		reason string
		action state.Action
	}{
		"while it runs it is stopped": {
			seen: state.Observed{Task: running, Spoiled: spoiled}, phase: v1alpha1.PhaseCanceling, reason: state.ReasonUngatedPod, action: state.ActionCancel,
		},
		"when it has ended well it failed": {
			seen: state.Observed{Task: ended(1, nil).Task, Spoiled: spoiled}, phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod, action: state.ActionNone,
		},
		"when it ended well all the same after it was stopped": {
			mutate: func(j *v1alpha1.VolumeRestore) {
				j.Status.Phase, j.Status.Reason = v1alpha1.PhaseCanceling, state.ReasonUngatedPod
			},
			seen: ended(1, nil), phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod, action: state.ActionNone,
		},
		"when it ended well and was cancelled": {
			mutate: func(j *v1alpha1.VolumeRestore) { j.Spec.Cancel = true },
			seen:   state.Observed{Task: ended(1, nil).Task, Spoiled: spoiled}, phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod, action: state.ActionNone,
		},
		"as long as nobody could look it is not completed": {
			seen: state.Observed{Task: ended(1, nil).Task, Waiting: away}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonAPIUnavailable, action: state.ActionNone,
		},
		"nobody looks for ever": {
			mutate: func(j *v1alpha1.VolumeRestore) {
				state.Apply(&j.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseInProgress, Reason: state.ReasonAPIUnavailable}, created.Add(-time.Hour))
			},
			seen: state.Observed{Task: ended(1, nil).Task, Waiting: away}, phase: v1alpha1.PhaseFailed, reason: state.ReasonAPIUnavailable, action: state.ActionNone,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := restoreOf(v1alpha1.VolumePersistentVolumeClaim)
			if c.mutate != nil {
				c.mutate(job)
			}

			d := state.NextRestore(job, c.seen, created, state.DefaultBounds())
			assert.Equal(t, c.phase, d.Phase)
			assert.Equal(t, c.reason, d.Reason)
			assert.Equal(t, c.action, d.Action)
		})
	}
}
