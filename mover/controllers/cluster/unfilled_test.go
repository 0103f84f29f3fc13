package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// restoreInto is a restore of the claim "data", whose Restore has made all its objects.
func restoreInto(restore string) (*velerov1.Restore, *v1alpha1.VolumeRestore) {
	uid := types.UID(restore + "-uid")
	job := jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{
		Restore: v1alpha1.OwnerReference{Name: restore, UID: uid},
		Target:  v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "data"}},
	})
	job.CreationTimestamp = metav1.NewTime(start)

	return &velerov1.Restore{
		ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: restore, UID: uid},
		Status:     velerov1.RestoreStatus{Phase: velerov1.RestorePhaseWaitingForPluginOperations},
	}, job
}

func (w *world) restore(t *testing.T, name string) *v1alpha1.VolumeRestore {
	t.Helper()

	_, err := w.ReconcileRestore(t.Context(), req(name))
	require.NoError(t, err)

	got := new(v1alpha1.VolumeRestore)
	require.NoError(t, w.client.Get(t.Context(), req(name).NamespacedName, got))

	return got
}

func (w *world) endRestore(t *testing.T, job *v1alpha1.VolumeRestore, phase v1alpha1.Phase) {
	t.Helper()

	job.Status.Phase = phase
	require.NoError(t, w.client.Status().Update(t.Context(), job))
	w.restore(t, job.Name)

	if pod := w.stage(t, job.Name); pod != nil {
		require.NoError(t, w.client.Delete(t.Context(), pod))
	}
}

// claimed sets when the claim was made.
func (w *world) claimed(t *testing.T, at time.Time) {
	t.Helper()

	var claim corev1.PersistentVolumeClaim
	require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "app", Name: "data"}, &claim))

	claim.CreationTimestamp = metav1.NewTime(at)
	require.NoError(t, w.client.Update(t.Context(), &claim))
}

func (w *world) unfilled(t *testing.T) string {
	t.Helper()

	var claim corev1.PersistentVolumeClaim
	require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "app", Name: "data"}, &claim))

	return claim.Labels[contract.LabelUnfilled]
}

func TestAClaimIsMarkedForAsLongAsItIsNotFilled(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		claim time.Time
		phase v1alpha1.Phase
		wrote bool
		stays bool
	}{
		"a new one that is filled":               {claim: start, phase: v1alpha1.PhaseCompleted, wrote: true},
		"a new one that nothing is written into": {claim: start, phase: v1alpha1.PhaseFailed, stays: true},
		"one in use that is written over":        {claim: start.Add(-time.Hour), phase: v1alpha1.PhaseCompleted, wrote: true},
		"one in use that is written half":        {claim: start.Add(-time.Hour), phase: v1alpha1.PhaseFailed, wrote: true, stays: true},
		"one in use that is left alone":          {claim: start.Add(-time.Hour), phase: v1alpha1.PhaseFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, job := restoreInto("r")
			w, _ := stagingWorld(t, owner, job)

			w.claimed(t, tt.claim)

			got := w.restore(t, job.Name)
			assert.Equal(t, state.ReasonStaging, got.Status.Reason)
			assert.Equal(t, job.Name, w.unfilled(t), "before there is anything that could write")

			if tt.wrote {
				got.Status.WritingSince = &metav1.Time{Time: start}
			}

			w.endRestore(t, got, tt.phase)
			assert.Equal(t, tt.stays, w.unfilled(t) == job.Name)
			assert.Equal(t, !tt.stays, w.unfilled(t) == "")
		})
	}
}

func TestALaterRestoreFillsWhatAnEarlierOneHasNot(t *testing.T) {
	t.Parallel()

	first, one := restoreInto("r1")
	second, two := restoreInto("r2")
	w, _ := stagingWorld(t, first, one, second, two)
	w.claimed(t, start)

	got := w.restore(t, one.Name)
	require.Equal(t, one.Name, w.unfilled(t))

	// What it has marked is its own also while it has no staging pod.
	require.NoError(t, w.client.Delete(t.Context(), w.stage(t, one.Name)))

	waits := w.restore(t, two.Name)
	assert.Equal(t, state.ReasonClaimHeld, waits.Status.Reason)
	assert.Contains(t, waits.Status.Message, one.Name)
	assert.Nil(t, w.stage(t, two.Name))
	assert.Equal(t, one.Name, w.unfilled(t))

	w.endRestore(t, got, v1alpha1.PhaseFailed)
	assert.Equal(t, one.Name, w.unfilled(t), "nobody has filled it")

	got = w.restore(t, two.Name)
	assert.Equal(t, state.ReasonStaging, got.Status.Reason)
	assert.Equal(t, two.Name, w.unfilled(t))

	w.endRestore(t, got, v1alpha1.PhaseFailed)
	assert.Equal(t, two.Name, w.unfilled(t), "it was not filled before")

	require.NoError(t, w.client.Get(t.Context(), req(two.Name).NamespacedName, got))
	w.endRestore(t, got, v1alpha1.PhaseCompleted)
	assert.Empty(t, w.unfilled(t))
}

func TestTwoRestoresThatMarkAClaimAtATime(t *testing.T) {
	t.Parallel()

	first, one := restoreInto("r1")
	second, two := restoreInto("r2")
	w, _ := stagingWorld(t, first, one, second, two)

	// While the one is about to mark the claim, the other one does.
	raced := false
	writes := w.Client
	w.Client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if _, ok := o.(*corev1.PersistentVolumeClaim); ok && !raced {
				raced = true
				w.Client = writes
				w.restore(t, two.Name)
			}

			return c.Patch(ctx, o, p, opts...)
		},
	})

	got := w.restore(t, one.Name)
	assert.Nil(t, w.stage(t, one.Name), "%s: %s", got.Status.Reason, got.Status.Message)
	assert.Equal(t, two.Name, w.unfilled(t))
	assert.Equal(t, state.ReasonClaimHeld, w.restore(t, one.Name).Status.Reason)
}

func TestARestoreGoesOnWhereItsClaimMayNotBeMarked(t *testing.T) {
	t.Parallel()

	owner, job := restoreInto("r")
	w, _ := stagingWorld(t, owner, job)
	w.Client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if _, ok := o.(*corev1.PersistentVolumeClaim); ok {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumeclaims"}, "data", nil)
			}

			return c.Patch(ctx, o, p, opts...)
		},
	})

	assert.Equal(t, state.ReasonStaging, w.restore(t, job.Name).Status.Reason)
	assert.Empty(t, w.unfilled(t))
}

func TestAClaimThatARestoreHasNotFilledIsNotBackedUp(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		label bool
		phase v1alpha1.Phase
		says  string
		none  bool
	}{
		"a restore is to come":         {phase: v1alpha1.PhaseNew, says: "is New"},
		"a restore is under way":       {label: true, phase: v1alpha1.PhaseInProgress, says: "is InProgress"},
		"a restore has failed":         {label: true, phase: v1alpha1.PhaseFailed, says: "has ended as Failed"},
		"a restore is gone":            {label: true, none: true, says: "is gone"},
		"a restore has filled it":      {label: true, phase: v1alpha1.PhaseCompleted},
		"no restore has to do with it": {none: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, filler := restoreInto("r")
			filler.Status.Phase = tt.phase

			more := []client.Object{owner, filler}
			if tt.none {
				more = nil
			}

			w, job := stagingWorld(t, more...)

			if tt.label {
				var claim corev1.PersistentVolumeClaim
				require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "app", Name: "data"}, &claim))
				claim.Labels = map[string]string{contract.LabelUnfilled: filler.Name}
				require.NoError(t, w.client.Update(t.Context(), &claim))
			}

			got, _ := w.backup(t, job.Name)
			if tt.says == "" {
				assert.Equal(t, state.ReasonStaging, got.Status.Reason, got.Status.Message)
				return
			}

			assert.Equal(t, v1alpha1.PhaseFailed, got.Status.Phase)
			assert.Equal(t, state.ReasonRestoreNotDone, got.Status.Reason)
			assert.Contains(t, got.Status.Message, tt.says)
			assert.Nil(t, w.stage(t, job.Name))
		})
	}
}

// A claim that many may mount at a time is not written while a backup reads it.
func TestARestoreWaitsForTheBackupOfItsClaim(t *testing.T) {
	t.Parallel()

	owner, filler := restoreInto("r")
	w, job := stagingWorld(t)

	var claim corev1.PersistentVolumeClaim
	require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "app", Name: "data"}, &claim))
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	require.NoError(t, w.client.Update(t.Context(), &claim))

	w.backup(t, job.Name)
	w.start(t, job.Name)
	w.backup(t, job.Name)

	require.NoError(t, w.client.Create(t.Context(), owner))
	require.NoError(t, w.client.Create(t.Context(), filler))

	got := w.restore(t, filler.Name)
	assert.Equal(t, state.ReasonClaimHeld, got.Status.Reason)
	assert.Contains(t, got.Status.Message, job.Name)
	assert.Nil(t, w.stage(t, filler.Name))

	require.NoError(t, w.client.Delete(t.Context(), w.stage(t, job.Name)))
	assert.Equal(t, state.ReasonStaging, w.restore(t, filler.Name).Status.Reason)
}
