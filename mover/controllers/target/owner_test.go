package target_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestBackupOwner(t *testing.T) {
	t.Parallel()

	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(minutes int) *metav1.Time {
		return ptr.To(metav1.NewTime(made.Add(time.Duration(minutes) * time.Minute)))
	}

	for name, c := range map[string]struct {
		backup *velerov1.BackupStatus
		uid    string
		job    int
		want   state.Owner
	}{
		"there is none":              {want: state.OwnerGone},
		"it is another of that name": {backup: &velerov1.BackupStatus{}, uid: "other", want: state.OwnerGone},
		"it has not begun":           {backup: &velerov1.BackupStatus{}, want: state.OwnerMakingObjects},
		"it runs":                    {backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseInProgress}, want: state.OwnerMakingObjects},
		"it waits":                   {backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseWaitingForPluginOperations}, want: state.OwnerWaiting},
		"it is finalized":            {backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseFinalizingPartiallyFailed}, want: state.OwnerWaiting},
		"it is being deleted":        {backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseDeleting}, want: state.OwnerDeleting},
		"it has failed":              {backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseFailed}, want: state.OwnerFailed},
		"it was refused":             {backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseFailedValidation}, want: state.OwnerFailed},
		"it ended after the job was made": {
			backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseCompleted, StartTimestamp: at(0), CompletionTimestamp: at(3)},
			job:    2, want: state.OwnerCompleted,
		},
		"it ended before": {
			backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhasePartiallyFailed, StartTimestamp: at(0), CompletionTimestamp: at(3)},
			job:    4, want: state.OwnerClosed,
		},
		"it ended after, by a clock that is ten minutes behind": {
			backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseCompleted, StartTimestamp: at(-10), CompletionTimestamp: at(-7)},
			job:    2, want: state.OwnerCompleted,
		},
		"it ended before, by such a clock": {
			backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseCompleted, StartTimestamp: at(-10), CompletionTimestamp: at(-7)},
			job:    4, want: state.OwnerClosed,
		},
		"it waited long for its turn": {
			backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhaseCompleted, StartTimestamp: at(60), CompletionTimestamp: at(63)},
			job:    62, want: state.OwnerCompleted,
		},
		// Velero gives a Backup up so whose location has vanished while it waited.
		"nobody wrote down when it ended": {backup: &velerov1.BackupStatus{Phase: velerov1.BackupPhasePartiallyFailed}, job: 4, want: state.OwnerDone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := &v1alpha1.VolumeBackup{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *at(c.job)}}
			job.Spec.Backup.UID = "uid"

			if c.uid != "" {
				job.Spec.Backup.UID = "of before"
			}

			var b *velerov1.Backup
			if c.backup != nil {
				b = &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{UID: "uid", CreationTimestamp: *at(0)}, Status: *c.backup}
			}

			assert.Equal(t, c.want, target.BackupOwner(b, job))
		})
	}
}
