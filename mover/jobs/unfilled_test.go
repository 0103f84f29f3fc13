package jobs_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

func TestUnfilled(t *testing.T) {
	t.Parallel()

	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	restore := func(name string, phase v1alpha1.Phase, changes ...func(*v1alpha1.VolumeRestore)) v1alpha1.VolumeRestore {
		r := v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{Name: name}}
		r.Spec.Target = v1alpha1.VolumeReference{Namespace: "shop", Claim: &v1alpha1.ClaimReference{Name: "data"}}
		r.Status.Phase, r.Status.ClaimUID = phase, "c1"

		if phase.Terminal() {
			r.Status.CompletionTimestamp = &metav1.Time{Time: at}
		}

		for _, change := range changes {
			change(&r)
		}

		return r
	}

	var (
		wrote     = func(r *v1alpha1.VolumeRestore) { r.Status.WritingSince = &metav1.Time{Time: at} }
		later     = func(r *v1alpha1.VolumeRestore) { r.Status.CompletionTimestamp.Time = at.Add(time.Minute) }
		before    = func(r *v1alpha1.VolumeRestore) { r.Status.CompletionTimestamp.Time = at.Add(-time.Minute) }
		earlier   = func(r *v1alpha1.VolumeRestore) { r.Status.ClaimUID = "c0" }
		elsewhere = func(r *v1alpha1.VolumeRestore) { r.Spec.Target.Namespace = "other" }
		ofAPod    = func(r *v1alpha1.VolumeRestore) { r.Spec.Target.Claim = nil }
		marked    = func(r *v1alpha1.VolumeRestore) {
			r.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionClaimMarked, Status: metav1.ConditionTrue}}
		}
		unmarkable = func(r *v1alpha1.VolumeRestore) {
			r.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionClaimMarked, Status: metav1.ConditionFalse}}
		}
	)

	for name, tt := range map[string]struct {
		label    string
		restores []v1alpha1.VolumeRestore
		by       string
	}{
		"no restore has anything to do with it": {},
		"restores of other volumes": {restores: []v1alpha1.VolumeRestore{
			restore("a", v1alpha1.PhaseInProgress, elsewhere), restore("b", v1alpha1.PhaseInProgress, ofAPod),
		}},
		"marked, and its restore is gone":              {label: "vr", by: "vr has not filled it and is gone"},
		"marked, and its restore fills something else": {label: "vr", restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseCompleted, elsewhere)}, by: "vr has not filled it"},
		"marked, and nobody has looked at it":          {label: "vr", restores: []v1alpha1.VolumeRestore{restore("vr", "")}, by: "vr, which fills it, is New"},
		"marked, and under way":                        {label: "vr", restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseInProgress)}, by: "vr, which fills it, is InProgress"},
		"marked, and failed":                           {label: "vr", restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseFailed, marked)}, by: "vr, which was to fill it, has ended as Failed"},
		"marked, and filled just now":                  {label: "vr", restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseCompleted)}},
		"marked, and an earlier one filled":            {label: "vr", restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseCompleted, earlier)}, by: "vr has filled another claim"},
		"marked, filled, and another restore comes": {label: "vr", restores: []v1alpha1.VolumeRestore{
			restore("vr", v1alpha1.PhaseCompleted), restore("wr", v1alpha1.PhaseAccepted),
		}, by: "wr, which fills it, is Accepted"},
		"marked, under way, and another restore waits": {label: "vr", restores: []v1alpha1.VolumeRestore{
			restore("a", v1alpha1.PhaseAccepted), restore("vr", v1alpha1.PhaseInProgress),
		}, by: "vr, which fills it, is InProgress"},
		"not marked yet":                                  {restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseAccepted)}, by: "vr, which fills it, is Accepted"},
		"failed, and wrote nothing":                       {restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseFailed)}},
		"failed half-way, of an older mover":              {restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseFailed, wrote)}, by: "vr, which was to fill it, has ended as Failed"},
		"failed half-way, and not to be marked":           {restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseFailed, wrote, unmarkable)}, by: "vr, which was"},
		"failed half-way, and somebody takes it as it is": {restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseFailed, wrote, marked)}},
		"failed half-way, in a claim that is gone":        {restores: []v1alpha1.VolumeRestore{restore("vr", v1alpha1.PhaseFailed, wrote, earlier)}},
		"failed half-way, and filled later": {restores: []v1alpha1.VolumeRestore{
			restore("vr", v1alpha1.PhaseFailed, wrote), restore("wr", v1alpha1.PhaseCompleted, later),
		}},
		"filled, and failed half-way later": {restores: []v1alpha1.VolumeRestore{
			restore("vr", v1alpha1.PhaseCanceled, wrote), restore("wr", v1alpha1.PhaseCompleted, before),
		}, by: "vr, which was to fill it, has ended as Canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "c1"}}
			if tt.label != "" {
				claim.Labels = map[string]string{contract.LabelUnfilled: tt.label}
			}

			why := jobs.Unfilled(claim, tt.restores)
			if tt.by == "" {
				assert.Empty(t, why)
			} else {
				assert.Contains(t, why, "VolumeRestore "+tt.by)
			}
		})
	}
}
