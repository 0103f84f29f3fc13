package volumeselect

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Dropped returns the volumes for which Velero leaves a running pod out of the backup, with an error of its own: its
// file-system backup is to take them, and its agent doesn't run on the pod's node (velero v1.18.3
// pkg/backup/item_backupper.go, pkg/podvolume/backupper.go). Traits returns what the policies look at of a volume.
func (s *Settings) Dropped(pod *corev1.Pod, traits func(*corev1.Volume) (Traits, error)) ([]string, error) {
	if pod.Status.Phase != corev1.PodRunning || s.CoreNodes == nil || s.CoreNodes[pod.Spec.NodeName] {
		return nil, nil
	}

	var names []string

	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]

		kind := typeOf(&volume.VolumeSource)
		if noData(kind) || kind == kindHostPath || kind == kindClaim && s.CoreLeavesClaims || strings.HasPrefix(volume.Name, "default-token") {
			continue
		}

		wanted, err := s.coreWants(pod, volume, traits)
		if err != nil {
			return nil, err
		}

		if wanted {
			names = append(names, volume.Name)
		}
	}

	return names, nil
}

func (s *Settings) coreWants(pod *corev1.Pod, volume *corev1.Volume, traits func(*corev1.Volume) (Traits, error)) (bool, error) {
	if s.Policies == nil || len(s.Policies.rules) == 0 {
		return s.coreMeans(pod, volume), nil
	}

	t, err := traits(volume)
	if err != nil {
		return false, err
	}

	if action := s.Policies.Match(t); action != nil {
		return action.Type == actionFSBackup, nil
	}

	return s.coreMeans(pod, volume), nil
}
