package restore

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// claim restores the claim "data" of the namespace shop.
func (b *bench) claim() {
	b.Helper()

	claim := b.item(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "data", Annotations: map[string]string{contract.AnnotationVolume: claimRecord(b.T, "nightly")},
	}})

	_, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: claim.DeepCopy(), ItemFromBackup: claim, Restore: b.restore})
	require.NoError(b, err)
}

func TestAPodWaitsForTheDataOfItsClaimWhateverItsRecordSays(t *testing.T) {
	record := func(volumes map[string]contract.Volume, lost map[string]string) string {
		text, err := contract.PodRecord{Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volumes: volumes, Unprotected: lost}.Encode()
		require.NoError(t, err)

		return text
	}

	for name, tt := range map[string]struct {
		record string
		into   string
		jobs   []string
	}{
		"there is none":                   {jobs: []string{"data"}},
		"there is none, and it is mapped": {into: "copy", jobs: []string{"data"}},
		"the claim's volume is missing in it": {
			record: record(map[string]contract.Volume{"cache": volumeRecord("vb-cache", "")}, nil), jobs: []string{"cache", "data"},
		},
		"the claim's volume is said to be lost": {
			record: record(map[string]contract.Volume{}, map[string]string{"data": "NotAskedFor: refused"}), jobs: []string{"data"},
		},
		"it names the claim's volume": {record: podRecord(t, "nightly"), jobs: []string{"cache", "data"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tt.into != "" {
				b.restore.Spec.NamespaceMapping = map[string]string{"shop": tt.into}
			}

			b.claim()

			original := recorded("web", tt.record)
			if tt.record == "" {
				original.Annotations = nil
			}

			pod, out, err := b.pod(original)
			require.NoError(t, err)
			require.Equal(t, contract.GateContainer, pod.Spec.InitContainers[0].Name)
			assert.Empty(t, out.AdditionalItems, "nothing comes back without its data")

			gate, err := contract.DecodeGateRecord(pod.Annotations[contract.AnnotationRestore])
			require.NoError(t, err)

			var held []string
			for volume, job := range gate.Jobs {
				held = append(held, volume)
				assert.Contains(t, out.OperationID, job)
			}

			assert.ElementsMatch(t, tt.jobs, held)
			assert.Len(t, b.jobs(), len(tt.jobs), "the claim's job is the one that was there")
		})
	}
}

func TestAPodWithoutARecordIsNotHeldForWhatCannotBeSeen(t *testing.T) {
	b := newBench(t)
	b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, ok := o.(*v1alpha1.VolumeRestore); ok {
				return errors.New("refused")
			}

			return c.Get(ctx, k, o, opts...)
		},
	})

	plain := recorded("web", "")
	plain.Annotations = nil
	pod, _, err := b.pod(plain)
	require.NoError(t, err)
	assert.Empty(t, pod.Spec.SchedulingGates)

	partly, err := contract.PodRecord{
		Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volumes: map[string]contract.Volume{"cache": volumeRecord("vb-cache", "")},
	}.Encode()
	require.NoError(t, err)
	pod, _, err = b.pod(recorded("web", partly))
	require.NoError(t, err)
	require.Len(t, pod.Spec.SchedulingGates, 1, "one of ours is")
}
