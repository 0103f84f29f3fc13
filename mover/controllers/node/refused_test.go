package node_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

// picky refuses statuses that hold what it does not like.
func picky(t *testing.T, c client.Client, refusal error, dislike func(*v1alpha1.VolumeBackup) bool) client.Client {
	t.Helper()

	inner, ok := c.(client.WithWatch)
	require.True(t, ok)

	return interceptor.NewClient(inner, interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			if job, ok := o.(*v1alpha1.VolumeBackup); ok && dislike(job) {
				return refusal
			}

			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
}

func TestAStatusThatIsRefusedEndsTheJob(t *testing.T) {
	t.Parallel()

	for name, refusal := range map[string]error{
		"invalid": apierrors.NewInvalid(schema.GroupKind{Kind: "VolumeBackup"}, "vb", nil),
		"too big": apierrors.NewRequestEntityTooLargeError("limit is 3145728"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newScene()
			w := newWorld(t, s.objects()...)
			w.backup(t, s.job.Name)
			w.Client = picky(t, w.client, refusal, func(j *v1alpha1.VolumeBackup) bool { return j.Status.SnapshotID != "" })
			w.tasks.Set(s.job.Name, func(r *task.Run) {
				r.State, r.Ran, r.Result.Backup = state.TaskEnded, true, &engine.BackupResult{SnapshotID: "k1"}
			})

			job := w.backup(t, s.job.Name)
			assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
			assert.Equal(t, state.ReasonInternal, job.Status.Reason)
			assert.Contains(t, job.Status.Message, "refuses")
		})
	}
}

func TestWhatAWorkerSaysFitsIntoTheStatus(t *testing.T) {
	t.Parallel()

	s := newScene()
	w := newWorld(t, s.objects()...)
	w.backup(t, s.job.Name)

	long := strings.Repeat("x", 1<<20)
	all := engine.Omission{Reason: engine.OmittedSocket, Count: 1, Examples: []string{long, long, long, long, long, long, long, long, long, long, long}}

	w.tasks.Set(s.job.Name, func(r *task.Run) {
		r.State, r.Ran, r.Fences = state.TaskEnded, true, &task.Fences{Missing: []string{"x"}, Detail: long}
		r.Result.Backup = &engine.BackupResult{SnapshotID: "k1", Summary: engine.Summary{Omissions: []engine.Omission{all}}}
	})

	job := w.backup(t, s.job.Name)
	assert.Equal(t, v1alpha1.PhaseCompleted, job.Status.Phase)
	assert.Len(t, job.Status.Summary.Omissions[0].Examples, 10)
	content, err := json.Marshal(job.Status)
	require.NoError(t, err)
	assert.Less(t, len(content), 32<<10)
}
