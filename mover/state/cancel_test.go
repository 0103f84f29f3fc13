package state

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

func TestACancelledJobEndsWithTheReasonThatWasWrittenDown(t *testing.T) {
	t.Parallel()

	now := time.Unix(1000, 0)

	for name, test := range map[string]struct {
		conditions []metav1.Condition
		annotated  string
		reason     string
		message    string
	}{
		"by somebody":                       {reason: ReasonCancelRequested, message: "spec.cancel"},
		"by Velero, whose bound has passed": {annotated: "15s", reason: ReasonOperationTimedOut, message: "15s for an operation (spec.itemOperationTimeout); give it more time: velero backup create --item-operation-timeout"},
		"by the controller": {
			conditions: []metav1.Condition{{Type: ConditionCancel, Reason: ReasonOwnerGone, Message: "Backup b: gone"}},
			reason:     ReasonOwnerGone, message: "Backup b: gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := &v1alpha1.VolumeBackup{}
			job.Spec.Cancel = true
			job.Status.Conditions = test.conditions

			if test.annotated != "" {
				job.Annotations = map[string]string{v1alpha1.AnnotationOperationTimeout: test.annotated}
			}

			d := NextBackup(job, Observed{}, now, DefaultBounds())
			assert.Equal(t, v1alpha1.PhaseCanceled, d.Phase)
			assert.Equal(t, test.reason, d.Reason)
			assert.Contains(t, d.Message, test.message)
		})
	}
}
