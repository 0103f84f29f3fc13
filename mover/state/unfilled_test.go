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

func claimedRestore() *v1alpha1.VolumeRestore {
	job := restoreOf(v1alpha1.VolumePersistentVolumeClaim)
	job.Spec.Target.Claim = &v1alpha1.ClaimReference{Name: "data"}

	return job
}

func TestMarkRemembersWhatTheClaimWas(t *testing.T) {
	t.Parallel()

	before, after := created.Add(-time.Second), created.Add(time.Second)

	for name, tt := range map[string]struct {
		claim  state.Claim
		change func(*v1alpha1.VolumeRestore)
		want   string
	}{
		"made by the restore":                     {claim: state.Claim{Found: true, Unfilled: "vr-1", Created: after}, want: state.MarkedUnfilled},
		"made by the restore, and nobody said so": {claim: state.Claim{Found: true, Created: after}, want: state.MarkedUnfilled},
		"made in the same second":                 {claim: state.Claim{Found: true, Created: created}, want: state.MarkedUnfilled},
		"there before":                            {claim: state.Claim{Found: true, Created: before}, want: state.MarkedInUse},
		"there before, and not filled":            {claim: state.Claim{Found: true, Unfilled: "vr-0", Created: before}, want: state.MarkedUnfilled},
		"not there":                               {claim: state.Claim{}},
		"none to mark":                            {claim: state.Claim{Found: true}, change: func(j *v1alpha1.VolumeRestore) { j.Spec.Target.Claim = nil }},
		"remembered already": {claim: state.Claim{Found: true, Created: before}, change: func(j *v1alpha1.VolumeRestore) {
			j.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionClaimMarked, Reason: state.MarkedUnfilled}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := claimedRestore()
			job.Name, job.CreationTimestamp = "vr-1", metav1.NewTime(created)

			if tt.change != nil {
				tt.change(job)
			}

			got := state.Mark(job, tt.claim, after)
			if tt.want == "" {
				assert.Nil(t, got)
				return
			}

			require.NotNil(t, got)
			assert.Equal(t, tt.want, got.Reason)
		})
	}
}

func TestTheMarkIsTakenOffAFilledClaimOnly(t *testing.T) {
	t.Parallel()

	mine := state.Claim{Found: true, UID: "c1", Unfilled: "vr-1"}
	writing := metav1.NewTime(created)

	for name, tt := range map[string]struct {
		phase   v1alpha1.Phase
		claim   state.Claim
		mark    string
		writing *metav1.Time
		want    bool
	}{
		"completed":                          {phase: v1alpha1.PhaseCompleted, claim: mine, mark: state.MarkedUnfilled, writing: &writing, want: true},
		"completed into another of its name": {phase: v1alpha1.PhaseCompleted, claim: state.Claim{Found: true, UID: "c2", Unfilled: "vr-1"}},
		"under way":                          {phase: v1alpha1.PhaseInProgress, claim: mine, mark: state.MarkedInUse},
		"failed in what it had written":      {phase: v1alpha1.PhaseFailed, claim: mine, mark: state.MarkedInUse, writing: &writing},
		"failed before, in use":              {phase: v1alpha1.PhaseFailed, claim: mine, mark: state.MarkedInUse, want: true},
		"failed before, new":                 {phase: v1alpha1.PhaseFailed, claim: mine, mark: state.MarkedUnfilled},
		"failed before it was marked":        {phase: v1alpha1.PhaseFailed, claim: mine},
		"canceled before, in use":            {phase: v1alpha1.PhaseCanceled, claim: mine, mark: state.MarkedInUse, want: true},
		"marked by a later restore":          {phase: v1alpha1.PhaseCompleted, claim: state.Claim{Found: true, UID: "c1", Unfilled: "vr-2"}},
		"gone":                               {phase: v1alpha1.PhaseCompleted, claim: state.Claim{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := claimedRestore()
			job.Name, job.Status.Phase, job.Status.ClaimUID, job.Status.WritingSince = "vr-1", tt.phase, "c1", tt.writing

			if tt.mark != "" {
				job.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionClaimMarked, Reason: tt.mark}}
			}

			assert.Equal(t, tt.want, state.Filled(job, tt.claim))
		})
	}
}

func TestOfTwoRestoresOfAClaimTheLaterWaits(t *testing.T) {
	t.Parallel()

	for name, pods := range map[string][]state.TargetPod{
		"its pods stand at their gates": {claimPod("web", func(p *state.TargetPod) { p.Gate = state.GateThere })},
		"no pod mounts it":              nil,
		"its staging pod is there":      {stagePod()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := claimedRestore()
			job.Name = stagedJob
			view := state.RestoreView{
				Owner: state.OwnerWaiting, Pods: pods, Heartbeats: map[string]state.Heartbeat{"n1": {Renewed: created}},
				Claim: state.Claim{Found: true, Bound: true, Shared: true, Unfilled: "vr-other"}, Filling: "vr-other",
			}

			d := state.RouteRestore(job, view, created, state.DefaultBounds())
			assert.Equal(t, state.ReasonClaimHeld, d.Reason)
			assert.Contains(t, d.Message, "vr-other")
			assert.False(t, d.Marks())
			assert.Equal(t, name == "its staging pod is there", d.Action == state.ActionUnstage)

			view.Filling = ""
			assert.True(t, state.RouteRestore(job, view, created, state.DefaultBounds()).Marks(), "the other one has ended")

			job.Spec.Cancel, view.Filling = true, "vr-other"
			assert.Equal(t, v1alpha1.PhaseCanceled, state.RouteRestore(job, view, created, state.DefaultBounds()).Phase)
		})
	}
}

func TestOnlyAClaimThatWasThereBeforeHasDataToKeep(t *testing.T) {
	t.Parallel()

	claim := &v1alpha1.ClaimReference{Name: "data", UID: "c"}

	for name, test := range map[string]struct {
		claim *v1alpha1.ClaimReference
		mark  string
		owned bool
	}{
		"one that was in use":                       {claim, state.MarkedInUse, true},
		"one that an earlier restore left unfilled": {claim, state.MarkedUnfilled, false},
		"one that nobody has looked at":             {claim, "", false},
		"a volume without a claim":                  {nil, state.MarkedInUse, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := &v1alpha1.VolumeRestore{}
			job.Spec.Target.Claim = test.claim

			if test.mark != "" {
				job.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionClaimMarked, Status: metav1.ConditionTrue, Reason: test.mark}}
			}

			assert.Equal(t, test.owned, state.Owned(job))
		})
	}
}
