package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

// sharedScene is a restore of a claim whose pod stands at its gate.
func sharedScene(t *testing.T) (*corev1.Pod, *v1alpha1.VolumeRestore, []client.Object) {
	t.Helper()

	owner, pod, job := restoreScene(t)
	s := newScene()
	pod.Spec.Volumes = s.pod.Spec.Volumes
	job.Spec.Target.Kind, job.Spec.Target.Claim = v1alpha1.VolumePersistentVolumeClaim, &v1alpha1.ClaimReference{Name: s.claim.Name}

	return pod, job, []client.Object{owner, pod, job, s.claim, s.pv}
}

func (w *world) stranger(t *testing.T, pod *corev1.Pod) {
	t.Helper()

	require.NoError(t, w.client.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: "stranger", UID: "suid"},
		Spec:       corev1.PodSpec{NodeName: "n2", Volumes: pod.Spec.Volumes},
	}))
}

func TestAPodWithoutAGateThatComesDuringTheRestoreEndsIt(t *testing.T) {
	t.Parallel()

	pod, job, objects := sharedScene(t)
	w := newWorld(t, objects...)
	w.restore(t, job.Name)
	w.tasks.Set(job.Name, func(r *task.Run) { r.State, r.Ran = state.TaskRunning, true })

	got := w.restore(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseInProgress, got.Status.Phase)

	w.stranger(t, pod)
	w.clock.Step(4 * time.Second)

	got = w.restore(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseInProgress, got.Status.Phase, "the pods are listed every five seconds")

	w.clock.Step(time.Second)

	got = w.restore(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseCanceling, got.Status.Phase)
	assert.Contains(t, w.tasks.Ended(job.Name), task.Abort)

	got = w.restore(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseFailed, got.Status.Phase)
	assert.Equal(t, state.ReasonUngatedPod, got.Status.Reason)
	assert.Contains(t, got.Status.Message, "stranger")
}

func TestAPodWithoutAGateIsLookedForBeforeTheRestoreIsCompleted(t *testing.T) {
	t.Parallel()

	pod, job, objects := sharedScene(t)
	w := newWorld(t, objects...)
	w.restore(t, job.Name)
	w.tasks.Set(job.Name, func(r *task.Run) { r.State, r.Ran = state.TaskRunning, true })
	w.restore(t, job.Name)
	w.stranger(t, pod)
	w.tasks.Set(job.Name, func(r *task.Run) { r.State, r.Result.Restore = state.TaskEnded, &engine.RestoreResult{} })

	got := w.restore(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseFailed, got.Status.Phase)
	assert.Equal(t, state.ReasonUngatedPod, got.Status.Reason)
}

// away is an API server that answers nothing.
type away struct{ client.Reader }

func (away) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.New("connection refused")
}

func (away) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("connection refused")
}

func TestWhatCantBeLookedAtIsWaitedForWithABound(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		mutate func(*v1alpha1.VolumeBackup)
		after  time.Duration
		phase  v1alpha1.Phase
		reason string
	}{
		"it is waited for":        {phase: v1alpha1.PhaseAccepted, reason: state.ReasonAPIUnavailable},
		"for so long":             {after: 5 * time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonAPIUnavailable},
		"a cancel does not wait":  {mutate: func(j *v1alpha1.VolumeBackup) { j.Spec.Cancel = true }, phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelRequested},
		"a deadline is kept":      {mutate: func(j *v1alpha1.VolumeBackup) { j.Spec.Options.Deadline = &metav1.Duration{Duration: 1} }, phase: v1alpha1.PhaseFailed, reason: state.ReasonDeadlineExceeded},
		"what is stopped goes on": {mutate: func(j *v1alpha1.VolumeBackup) { j.Status.Phase, j.Status.Reason = v1alpha1.PhaseCanceling, "X" }, phase: v1alpha1.PhaseFailed, reason: "X"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newScene()
			if c.mutate != nil {
				c.mutate(s.job)
			}

			w := newWorld(t, s.objects()...)
			w.Direct = away{}
			w.clock.Step(time.Second)

			job := w.backup(t, s.job.Name)

			if c.after > 0 {
				w.clock.Step(c.after)

				job = w.backup(t, s.job.Name)
			}

			assert.Equal(t, c.phase, job.Status.Phase)
			assert.Equal(t, c.reason, job.Status.Reason)
			assert.Empty(t, w.tasks.Begun(s.job.Name))
		})
	}
}

func TestACacheThatLagsEndsNothing(t *testing.T) {
	t.Parallel()

	s := newScene()
	w := newWorld(t, s.objects()...)
	w.backup(t, s.job.Name)
	w.tasks.Set(s.job.Name, func(r *task.Run) { r.State, r.Ran = state.TaskRunning, true })

	// The API server has the pod; the cache doesn't.
	stale := newScene()
	stale.pod.UID = "older"
	cache := newWorld(t, stale.objects()...)
	w.Client = halves{Client: w.client, pods: cache.client}

	job := w.backup(t, s.job.Name)
	assert.Equal(t, v1alpha1.PhaseInProgress, job.Status.Phase)
	assert.Empty(t, w.tasks.Ended(s.job.Name))
}

// halves reads pods elsewhere.
type halves struct {
	client.Client
	pods client.Reader
}

func (h halves) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if _, ok := o.(*corev1.Pod); ok {
		return h.pods.Get(ctx, key, o, opts...)
	}

	return h.Client.Get(ctx, key, o, opts...)
}
