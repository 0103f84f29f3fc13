package backup

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/operation"
)

func TestAPodThatHasAClaimUnderTwoNamesReportsItsJobOnce(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", selecting("*"), ofClaim("data", "data"), ofClaim("same", "data"))
	b := newBench(t, claim, pv, pod)

	annotations, op := b.run(pod)
	id, err := operation.Parse(op)
	require.NoError(t, err, "an ID that can't be read would fail the operation for good")
	assert.Len(t, id.Jobs, 1)

	record, err := contract.DecodePodRecord(annotations[contract.AnnotationVolumes])
	require.NoError(t, err)
	assert.Len(t, record.Volumes, 2)
}

func TestAPodWaitsForTheJobOfItsClaimWhateverHasHappenedSince(t *testing.T) {
	for name, meanwhile := range map[string]func(b *bench, claim *corev1.PersistentVolumeClaim){
		"nothing has": func(*bench, *corev1.PersistentVolumeClaim) {},
		"the API server fails": func(b *bench, _ *corev1.PersistentVolumeClaim) {
			b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
				Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
					return errors.New("refused")
				},
			})
		},
		"the claim is excluded": func(b *bench, claim *corev1.PersistentVolumeClaim) {
			claim.Annotations = map[string]string{contract.AnnotationBackup: "false"}
			require.NoError(b, b.client.Update(context.Background(), claim))
		},
		"the daemon is silent": func(b *bench, _ *corev1.PersistentVolumeClaim) { b.clock.Step(5 * time.Minute) },
	} {
		for process, dies := range map[string]bool{"in the same process": false, "in a process that knows nothing": true} {
			t.Run(name+", "+process, func(t *testing.T) {
				claim, pv := boundClaim("data")
				pod := podWith("web", selecting("data"), ofClaim("data", "data"))
				b := newBench(t, claim, pv, pod)

				_, op := b.run(claim)
				require.NotEmpty(t, op)
				meanwhile(b, claim.DeepCopy())

				if dies {
					b.session = NewSession(func() (client.Client, error) { return b.client, nil }, b.clock)
				}

				annotations, _ := b.run(pod)
				assert.Contains(t, annotations[contract.AnnotationVolumes], `"data":{"job":"vb-`, "a restore fills the claim, and the pod must not start before")
				assert.Len(t, b.jobs(), 1)
			})
		}
	}
}

func TestTheJobOfAClaimWhoseProcessDiedIsReportedByItsPod(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", selecting("data"), ofClaim("data", "data"))
	b := newBench(t, claim, pv, pod)

	_, lost := b.run(claim)
	_, op := b.run(pod)
	require.Empty(t, op, "the claim's operation reports it")

	b.session = NewSession(func() (client.Client, error) { return b.client, nil }, b.clock)
	_, op = b.run(pod)
	assert.Equal(t, lost, op, "Velero may never have heard of the claim's operation")
}

func TestWhatNobodyAskedForCostsOneLookInABackup(t *testing.T) {
	claim, pv := boundClaim("data")
	first, second := podWith("web-0", nil, ofClaim("data", "data")), podWith("web-1", nil, ofClaim("data", "data"))
	b := newBench(t, claim, pv, first, second)

	looks := 0
	b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
			if _, ok := l.(*v1alpha1.VolumeBackupList); ok {
				looks++
			}

			return c.List(ctx, l, o...)
		},
	})

	for _, pod := range []*corev1.Pod{first, second} {
		annotations, op := b.run(pod)
		assert.NotContains(t, annotations, contract.AnnotationVolumes)
		assert.Empty(t, op)
	}

	assert.Equal(t, 1, looks)
}

func TestAClaimThatVeleroTookASnapshotOfAfterItsVolumeIsNotPromised(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", nil, ofClaim("data", "data"))
	b := newBench(t, claim, pv, pod)
	b.backup.Annotations = map[string]string{contract.AnnotationDefaultVolumes: "opt-out"}

	volume, _ := b.run(pv)
	require.Contains(t, volume, contract.AnnotationVolume, "its action comes before the snapshot")

	claim.Labels = map[string]string{"velero.io/backup-name": b.backup.Name}
	claim.Annotations = map[string]string{"velero.io/volume-snapshot-name": "s"}
	record, op := b.run(claim)
	assert.NotContains(t, record, contract.AnnotationVolume)
	assert.Empty(t, op)

	annotations, _ := b.run(pod)
	assert.NotContains(t, annotations, contract.AnnotationVolumes)
	assert.Empty(t, b.jobs())
}

func TestAVolumeCostsFewCalls(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", selecting("data"), ofClaim("data", "data"))
	b := newBench(t, claim, pv, pod)

	b.run(podWith("other", nil))

	calls := 0
	b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			calls++

			return c.Get(ctx, k, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
			calls++

			return c.List(ctx, l, o...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			calls++

			return c.Create(ctx, o, opts...)
		},
	})

	b.run(pv)
	b.run(claim)
	b.run(pod)
	assert.LessOrEqual(t, calls, 4+5, "two reads of the claim, one of its volume, its job; and once for all: pods, restores, heartbeats, repository, and where its location points")
}
