package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestANodeThatIsCutOffEndsItsRestores(t *testing.T) {
	t.Parallel()

	for name, result := range map[string]func(*task.Run){
		"and the worker ended so":          func(*task.Run) {},
		"also one that ended well by then": func(r *task.Run) { r.Failure, r.Result.Restore = nil, &engine.RestoreResult{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, pod, job := restoreScene(t)
			s := newScene()
			w := newWorld(t, owner, pod, job, s.backup, s.repo, s.job)
			w.restore(t, job.Name)
			w.tasks.Begin(s.job.Name, task.Work{UID: s.job.UID + "/" + s.job.Spec.Volume.Pod.UID, Attempt: 1})
			w.tasks.Set(job.Name, func(r *task.Run) { r.State, r.Ran = state.TaskRunning, true })
			w.restore(t, job.Name)

			w.Fence(t.Context(), 100*time.Second)
			assert.Equal(t, []task.Ending{task.Abort}, w.tasks.Ended(job.Name))
			assert.Empty(t, w.tasks.Ended(s.job.Name), "a backup harms nobody")
			w.tasks.Set(job.Name, result)

			got := w.restore(t, job.Name)
			assert.True(t, got.Status.Phase.Terminal())

			if name == "and the worker ended so" {
				assert.Equal(t, v1alpha1.PhaseFailed, got.Status.Phase)
				assert.Equal(t, state.ReasonNodeLost, got.Status.Reason)
			}
		})
	}
}

func TestTheHeartbeatTellsWhenTheNodeIsCutOff(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	asked := make(chan struct{})
	inner, ok := w.client.(client.WithWatch)
	require.True(t, ok)

	cut := interceptor.NewClient(inner, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			asked <- struct{}{}
			return errors.New("connection refused")
		},
	})
	lost := make(chan time.Duration, 100)
	h := &node.Heartbeat{
		Node: "n1", Namespace: veleroNS, Every: 10 * time.Second, Client: cut, Clock: w.clock,
		LostAfter: 100 * time.Second, Lost: func(_ context.Context, silent time.Duration) { lost <- silent },
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)

	go func() { ended <- h.Start(ctx) }()

	<-asked

	for range 9 {
		w.clock.Step(10 * time.Second)
		<-asked
	}

	assert.Empty(t, lost, "ninety seconds are not enough")
	w.clock.Step(10 * time.Second)
	<-asked
	assert.Equal(t, 100*time.Second, <-lost)
	stop()
	require.NoError(t, <-ended)
}
