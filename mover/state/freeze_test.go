package state_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestAFreezeThatTookTooLongNamesTheSetting(t *testing.T) {
	t.Parallel()

	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	job := &v1alpha1.VolumeBackup{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(at)}}
	job.Spec.Options.Frozen = true

	d := state.NextBackup(job, state.Observed{}, at.Add(time.Hour), state.DefaultBounds())
	assert.Equal(t, state.ReasonFreezeExceeded, d.Reason)
	assert.Contains(t, d.Message, contract.AnnotationFreezeTimeout)
}
