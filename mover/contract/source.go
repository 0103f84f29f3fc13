package contract

import (
	"regexp"
	"strings"
)

// Source is the identity of a volume as the chain of its snapshots sees it.
type Source struct {
	// Path that the chain follows.
	Path string
	// Instance of the volume: reading a file may be skipped only against a
	// snapshot of the same path and the same instance.
	Instance string
}

// ClaimSource is the identity of a volume behind a PersistentVolumeClaim. The
// chain follows the claim's name, so that a volume that was deleted and
// restored goes on with the same chain; the instance is the very claim and volume.
func ClaimSource(claim, claimUID, volumeUID string) Source {
	return Source{
		Path:     "/persistentvolumeclaim/" + claim,
		Instance: "pvc/" + claimUID + "/" + volumeUID,
	}
}

// Workload is what owns a pod, as far as the pod itself tells.
type Workload struct {
	// Kind of the pod's controller, such as ReplicaSet or StatefulSet; empty if it has none.
	Kind string
	// Name of the pod's controller.
	Name string
	// Pod is the pod's own name.
	Pod string
	// PodTemplateHash is the value of the pod's label pod-template-hash, if any.
	PodTemplateHash string
}

var ordinal = regexp.MustCompile(`-([0-9]+)$`)

// EphemeralSource is the identity of a volume that lives and dies with its pod.
// The chain follows what stays when the pod is replaced: the workload, the
// volume's name and, for a StatefulSet, the ordinal. The instance is the pod,
// so that a sibling replica's files are never taken for this one's.
func EphemeralSource(w Workload, podUID, volume string) Source {
	return Source{
		Path:     "/" + workloadPath(w) + "/" + volume,
		Instance: "pod/" + podUID + "/" + volume,
	}
}

func workloadPath(w Workload) string {
	switch w.Kind {
	case "":
		return "pod/" + w.Pod
	case "StatefulSet":
		if m := ordinal.FindStringSubmatch(w.Pod); m != nil {
			return "statefulset/" + w.Name + "/" + m[1]
		}
	case "ReplicaSet":
		// A Deployment names its ReplicaSets NAME-HASH, and labels their pods with the hash.
		if name, ok := strings.CutSuffix(w.Name, "-"+w.PodTemplateHash); ok && w.PodTemplateHash != "" {
			return "deployment/" + name
		}
	}

	return strings.ToLower(w.Kind) + "/" + w.Name
}

// SnapshotUser is the user of all kopia sources: kopia wants one, and the host
// and the path say all there is to say.
const SnapshotUser = "estiba"

// SnapshotHost is the host of the kopia sources of a namespace's volumes.
func SnapshotHost(namespace string) string { return namespace }
