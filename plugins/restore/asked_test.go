package restore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

func TestARestoreAsksForWhatIsSet(t *testing.T) {
	begun := metav1.NewTime(time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC))

	tests := map[string]struct {
		config, annotations map[string]string
		begun               *metav1.Time
		existing            v1alpha1.ExistingData
		missing             v1alpha1.OnMissingSnapshot
		previous            *v1alpha1.PreviousSnapshot
		errors              bool
	}{
		"nothing is the careful default": {begun: &begun, existing: v1alpha1.ExistingRefuse, missing: v1alpha1.MissingFail},
		"the ConfigMap": {
			config: map[string]string{"existing-data": "overwrite", "on-missing-snapshot": "empty"}, begun: &begun,
			existing: v1alpha1.ExistingOverwrite, missing: v1alpha1.MissingEmpty,
		},
		"annotations count for more": {
			config:      map[string]string{"existing-data": "overwrite", "on-missing-snapshot": "empty"},
			annotations: map[string]string{contract.AnnotationExistingData: "mirror", contract.AnnotationOnMissingSnapshot: "fail"},
			begun:       &begun, existing: v1alpha1.ExistingMirror, missing: v1alpha1.MissingFail,
		},
		"an older snapshot of the same source, from before the backup": {
			annotations: map[string]string{contract.AnnotationOnMissingSnapshot: "previous"}, begun: &begun,
			existing: v1alpha1.ExistingRefuse, missing: v1alpha1.MissingPrevious,
			previous: &v1alpha1.PreviousSnapshot{Source: "/x", Before: begun},
		},
		"no older snapshot where the backup's time isn't known": {
			annotations: map[string]string{contract.AnnotationOnMissingSnapshot: "previous"},
			existing:    v1alpha1.ExistingRefuse, missing: v1alpha1.MissingFail,
		},
		"a value that nobody knows": {
			annotations: map[string]string{contract.AnnotationExistingData: "mirorr"}, begun: &begun,
			existing: v1alpha1.ExistingRefuse, missing: v1alpha1.MissingFail, errors: true,
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.restore.Annotations = test.annotations

			var backup velerov1.Backup
			require.NoError(t, b.client.Get(t.Context(), client.ObjectKey{Namespace: "velero", Name: "nightly"}, &backup))
			backup.Status.StartTimestamp = test.begun
			require.NoError(t, b.client.Update(t.Context(), &backup))

			if test.config != nil {
				require.NoError(t, b.client.Create(t.Context(), &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "settings", Labels: map[string]string{contract.LabelPluginConfig: ""}}, Data: test.config,
				}))
			}

			location, err := b.session.location(t.Context(), b.log, b.restore)
			require.NoError(t, err)

			one := target{volume: volumeRecord("vb-1", "data"), backup: contract.Owner{Name: "nightly", UID: "b-1"}, where: v1alpha1.VolumeReference{
				Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "shop", Claim: &v1alpha1.ClaimReference{Name: "data"},
			}}
			_, err = b.session.ensure(t.Context(), b.log, b.restore, []target{one}, location)
			require.NoError(t, err)

			var list v1alpha1.VolumeRestoreList
			require.NoError(t, b.client.List(t.Context(), &list))
			require.Len(t, list.Items, 1)

			spec := list.Items[0].Spec
			assert.Equal(t, test.existing, spec.ExistingData)
			assert.Equal(t, test.missing, spec.OnMissingSnapshot)
			assert.Equal(t, test.previous != nil, spec.Previous != nil)

			if test.previous != nil {
				assert.Equal(t, test.previous.Source, spec.Previous.Source)
				assert.True(t, test.previous.Before.Equal(&spec.Previous.Before))
			}

			assert.Equal(t, test.errors, b.session.take(b.restore) != nil)
		})
	}
}
