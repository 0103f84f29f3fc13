package state

import (
	"fmt"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// RouteBackup returns the node for a backup that names none: that of its pod, which
// is nil where there is no such pod. The finding is why there is no node for it.
func RouteBackup(job *v1alpha1.VolumeBackup, pod *TargetPod) (node string, f *Finding) {
	ref := job.Spec.Volume
	name := ref.Namespace + "/" + ref.Pod.Name

	switch {
	case pod == nil:
		return "", &Finding{ReasonPodNotFound, fmt.Sprintf("pod %s (spec.volume.pod) does not exist; back it up again", name)}
	case pod.UID != string(ref.Pod.UID):
		return "", &Finding{ReasonPodReplaced, fmt.Sprintf(
			"pod %s has UID %s (metadata.uid), and the job names %s (spec.volume.pod.uid): it was replaced; back it up again", name, pod.UID, ref.Pod.UID)}
	case pod.Deleting:
		return "", &Finding{ReasonPodDeleted, fmt.Sprintf("pod %s is being deleted (metadata.deletionTimestamp); back its successor up", name)}
	case pod.Finished:
		return "", &Finding{ReasonPodNotRunning, fmt.Sprintf("pod %s has ended (status.phase), so that its volumes are not mounted; back it up again", name)}
	case pod.Node == "":
		return "", &Finding{ReasonPodUnscheduled, fmt.Sprintf("pod %s is on no node yet (spec.nodeName), so that its volumes are nowhere; back it up when it runs", name)}
	default:
		return pod.Node, nil
	}
}
