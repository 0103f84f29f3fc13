package backup

import (
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

func TestAClaimThatARestoreHasNotFilledIsRefusedByName(t *testing.T) {
	for name, tt := range map[string]struct {
		label string
		phase v1alpha1.Phase
		says  string
	}{
		"marked":                  {label: "vr-1", says: "VolumeRestore vr-1 has not filled it"},
		"marked, and under way":   {label: "vr-1", phase: v1alpha1.PhaseInProgress, says: "VolumeRestore vr-1, which fills it, is InProgress"},
		"not marked, and to come": {phase: v1alpha1.PhaseNew, says: "VolumeRestore vr-1, which fills it, is New"},
		"marked, and filled":      {label: "vr-1", phase: v1alpha1.PhaseCompleted},
	} {
		t.Run(name, func(t *testing.T) {
			claim, pv := boundClaim("data")
			claim.Annotations = map[string]string{contract.AnnotationBackup: "true"}

			if tt.label != "" {
				claim.Labels = map[string]string{contract.LabelUnfilled: tt.label}
			}

			b := newBench(t, claim, pv)

			if tt.phase != "" {
				filler := &v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "vr-1"}}
				filler.Spec.Target = v1alpha1.VolumeReference{Namespace: "shop", Claim: &v1alpha1.ClaimReference{Name: "data"}}
				filler.Status.Phase = tt.phase
				require.NoError(t, b.client.Create(t.Context(), filler))
			}

			ofVolume, _ := b.run(pv)
			record, op := b.run(claim)

			if tt.says == "" {
				assert.Contains(t, record, contract.AnnotationVolume)
				assert.NotEmpty(t, op)

				return
			}

			assert.NotContains(t, ofVolume, contract.AnnotationVolume)
			assert.NotContains(t, record, contract.AnnotationVolume)

			said, err := contract.DecodeUnprotectedRecord(record[contract.AnnotationVolumeUnprotected])
			require.NoError(t, err, "a restore of this backup must say that the data isn't in it")
			assert.Contains(t, said.Reason, "RestoreNotDone: ")
			assert.Equal(t, "nightly", said.Backup.Name)

			assert.Empty(t, op)
			assert.Empty(t, b.jobs())

			loud := false
			for _, line := range b.lines.AllEntries() {
				loud = loud || line.Level == logrus.ErrorLevel && assert.ObjectsAreEqual("RestoreNotDone", line.Data["reason"]) && assert.Contains(t, line.Message, tt.says)
			}

			assert.True(t, loud, "Velero counts errors of its log")
		})
	}
}
