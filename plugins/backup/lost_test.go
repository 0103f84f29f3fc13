package backup

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// ask puts Velero's question for an operation in a process of its own, as its looks every 10 s are.
func (b *bench) ask(op string) velero.OperationProgress {
	b.Helper()

	s := NewSession(func() (client.Client, error) { return b.client, nil }, b.clock)

	p, err := NewPodAction(b.log, s).Progress(op, b.backup)
	require.NoError(b, err)

	return p
}

func (b *bench) put(op string, phase v1alpha1.Phase) {
	b.Helper()

	id, err := operation.Parse(op)
	require.NoError(b, err)

	for _, job := range b.jobs() {
		if job.Name == id.Jobs[0] {
			job.Status.Phase, job.Status.Message = phase, "because"
			require.NoError(b, b.client.Update(context.Background(), &job))
		}
	}
}

func TestAnOperationStandsInForOneThatVeleroHasLost(t *testing.T) {
	made := func(t *testing.T, known int) (*bench, []string) {
		t.Helper()

		var (
			pods []client.Object
			ops  []string
		)

		for i := range 3 {
			pods = append(pods, podWith(fmt.Sprintf("web-%d", i), selecting("a, b"), emptyDir("a"), emptyDir("b")))
		}

		b := newBench(t, pods...)
		for _, pod := range pods {
			_, op := b.run(pod)
			ops = append(ops, op)
		}

		b.set(v1alpha1.PhaseCompleted)
		b.backup.Status.Phase, b.backup.Status.BackupItemOperationsAttempted = velerov1.BackupPhaseWaitingForPluginOperations, known

		return b, ops
	}

	t.Run("as long as its volume is being moved", func(t *testing.T) {
		b, ops := made(t, 2)
		b.put(ops[2], v1alpha1.PhaseInProgress)

		p := b.ask(ops[0])
		assert.False(t, p.Completed, "the Backup would end without the third volume")
		assert.Contains(t, p.Description, "Velero has lost 1 operations")

		b.put(ops[2], v1alpha1.PhaseCompleted)

		p = b.ask(ops[0])
		assert.True(t, p.Completed)
		assert.Empty(t, p.Err)
	})

	t.Run("and tells of its failure, once", func(t *testing.T) {
		b, ops := made(t, 2)
		b.put(ops[2], v1alpha1.PhaseFailed)

		var told []string

		for _, op := range ops[:2] {
			p, err := NewPodAction(b.log, b.session).Progress(op, b.backup)
			require.NoError(t, err)
			assert.True(t, p.Completed)

			if p.Err != "" {
				told = append(told, p.Err)
			}
		}

		require.Len(t, told, 1)
		assert.Contains(t, told[0], "because")
		assert.Contains(t, told[0], "volume web-2/")
	})

	t.Run("but not where none is lost", func(t *testing.T) {
		for _, known := range []int{3, 7} {
			b, ops := made(t, known)
			b.put(ops[1], v1alpha1.PhaseFailed)
			b.put(ops[2], v1alpha1.PhaseInProgress)

			p := b.ask(ops[0])
			assert.True(t, p.Completed)
			assert.Empty(t, p.Err)
		}
	})

	t.Run("and waits for Velero's count where something could be missing", func(t *testing.T) {
		b, ops := made(t, 0)
		b.backup.Status.Phase = velerov1.BackupPhaseInProgress
		assert.True(t, b.ask(ops[0]).Completed, "all is done: nothing can be missing")

		b.put(ops[2], v1alpha1.PhaseFailed)
		assert.False(t, b.ask(ops[0]).Completed, "the backup would go on as if nothing had failed")

		p := b.ask(ops[2])
		assert.True(t, p.Completed)
		assert.NotEmpty(t, p.Err)
	})
}
