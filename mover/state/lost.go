package state

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// ConditionOperationLost is the type of the condition that says that Velero has ended the Backup without the job.
const ConditionOperationLost = "OperationLost"

// LostOperation returns what is to be said of a backup's job without which Velero has ended the Backup; nil where there
// is nothing, or nothing new. A Backup that ended without failures, and a job that failed, contradict each other: Velero
// has not asked for the job's end.
func LostOperation(job *v1alpha1.VolumeBackup, o Owner) *Finding {
	var f Finding

	known := meta.FindStatusCondition(job.Status.Conditions, ConditionOperationLost)

	switch failed := job.Status.Phase.Terminal() && job.Status.Phase != v1alpha1.PhaseCompleted; {
	case o != OwnerDone && o != OwnerCompleted, job.Status.Phase == v1alpha1.PhaseCompleted:
		return nil
	case failed && (o == OwnerCompleted || known != nil):
		f = Finding{ReasonVolumeMissing, fmt.Sprintf("Backup %s has ended, but %s is not in it (%s: %s); back it up again (velero backup create)",
			job.Spec.Backup.Name, volumeName(job.Spec.Volume), job.Status.Reason, job.Status.Message)}
	case failed, job.Spec.Cancel:
		// Velero knows, for it has asked for the end, or for the outcome.
		return nil
	default:
		f = Finding{ReasonOperationLost, fmt.Sprintf("Velero has ended Backup %s without waiting for %s, which is moved to its end; restore it when this job is Completed",
			job.Spec.Backup.Name, volumeName(job.Spec.Volume))}
	}

	if known != nil && known.Reason == f.Reason {
		return nil
	}

	return &f
}

func volumeName(v v1alpha1.VolumeReference) string {
	if v.Claim != nil {
		return claimName(v)
	}

	return fmt.Sprintf("volume %s of pod %s/%s", v.Name, v.Namespace, v.Pod.Name)
}
