package volumeselect

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Velero's own annotations that select volumes for its file-system backup
// (velero v1.18.3 pkg/apis/velero/v1/labels_annotations.go).
const (
	coreVolumes         = "backup.velero.io/backup-volumes"
	coreVolumesExcludes = "backup.velero.io/backup-volumes-excludes"
)

// forVolume returns the settings as they count for a claim with that volume; it
// may be nil. Velero's own file-system backup passes over volumes of the type
// hostPath with no more than a warning (velero v1.18.3 pkg/podvolume/backupper.go).
func (s *Settings) forVolume(pv *corev1.PersistentVolume) *Settings {
	if pv == nil || pv.Spec.HostPath == nil {
		return s
	}

	leaving := *s
	leaving.CoreLeavesClaims = true

	return &leaving
}

// unfulfilled returns the action that the policy has for a claim, and marks the
// one that asks for a snapshot where there is none and nobody who could take one.
func (s *Settings) unfulfilled(c Claim, action *Action) *Action {
	if action == nil || action.Type != actionSnapshot || c.Snapshotted || len(s.Snapshotters) > 0 {
		return action
	}

	return &Action{Type: action.Type, Parameters: action.Parameters, idle: true}
}

// others says who else takes the volume, or what keeps a mere default off it.
func (s *Settings) others(pod *corev1.Pod, volume *corev1.Volume, action *Action) selection {
	if action != nil {
		return s.byAction(pod, volume, action)
	}

	excluded := pod != nil && slices.Contains(patterns(pod.Annotations[coreVolumesExcludes]), volume.Name)

	switch {
	case s.coreTakes(pod, volume):
		return selection{rank: rankTaken, reason: ReasonLeftToFSB, by: s.coreBy(pod)}
	case excluded:
		return selection{rank: rankYield, reason: ReasonExcluded, by: fmt.Sprintf("annotation %s of pod %s excludes it", coreVolumesExcludes, pod.Name)}
	default:
		return selection{}
	}
}

func (s *Settings) byAction(pod *corev1.Pod, volume *corev1.Volume, action *Action) selection {
	by := fmt.Sprintf("the backup's volume policy says %s", action)

	switch action.Type {
	case actionFSBackup:
		if pod != nil && !s.coreCan(pod, volume) {
			return selection{reason: ReasonNotSelected, by: by}
		}

		return selection{rank: rankTaken, reason: ReasonLeftToFSB, by: by}
	case actionSnapshot:
		// There are no snapshots of what no claim stands behind.
		if kind := typeOf(&volume.VolumeSource); action.idle || kind != "" && kind != kindClaim && kind != kindEphemeral {
			return selection{reason: ReasonNotSelected, by: by}
		}

		return selection{rank: rankTaken, reason: ReasonLeftToSnapshot, by: by}
	case actionCustom:
		return selection{rank: rankTaken, reason: ReasonLeftToOther, by: by}
	default:
		return selection{rank: rankYield, reason: ReasonExcluded, by: by}
	}
}

// alsoTaken says who else moves a selected volume, or that the policy meant otherwise.
func (s *Settings) alsoTaken(pod *corev1.Pod, volume *corev1.Volume, action *Action) string {
	switch {
	case action.Estiba():
		return ""
	case action != nil && action.Type == actionFSBackup:
		return "the volume policy gives it to Velero's own file-system backup, too: it is moved twice"
	case action != nil && action.Type == actionSnapshot:
		if action.idle {
			return ""
		}

		return "the volume policy asks for a snapshot of it, too"
	case action != nil:
		return fmt.Sprintf("the volume policy says %s, but what names Estiba counts for more", action)
	case s.coreTakes(pod, volume):
		return "Velero's own file-system backup takes it, too: it is moved twice (" + s.coreBy(pod) + ")"
	default:
		return ""
	}
}

// coreTakes reports whether Velero's own file-system backup takes a volume that
// no policy matches. Its lists hold plain names, and spaces count.
func (s *Settings) coreTakes(pod *corev1.Pod, volume *corev1.Volume) bool {
	return pod != nil && s.coreCan(pod, volume) && s.coreMeans(pod, volume)
}

// coreMeans reports whether Velero's own file-system backup is to take the volume,
// whether or not it can.
func (s *Settings) coreMeans(pod *corev1.Pod, volume *corev1.Volume) bool {
	if s.CoreTakesAll {
		return !slices.Contains(strings.Split(pod.Annotations[coreVolumesExcludes], ","), volume.Name)
	}

	return slices.Contains(strings.Split(pod.Annotations[coreVolumes], ","), volume.Name)
}

func (s *Settings) coreBy(pod *corev1.Pod) string {
	if s.CoreTakesAll {
		return fmt.Sprintf("the Backup has defaultVolumesToFsBackup, and annotation %s of pod %s doesn't exclude it", coreVolumesExcludes, pod.Name)
	}

	return fmt.Sprintf("annotation %s of pod %s names it", coreVolumes, pod.Name)
}

// coreCan reports whether Velero's own file-system backup can take the volume
// (velero v1.18.3 pkg/podvolume/backupper.go, internal/volumehelper): it passes
// over those that only init containers mount, and it wants a running pod and
// its agent on the node.
func (s *Settings) coreCan(pod *corev1.Pod, volume *corev1.Volume) bool {
	kind := typeOf(&volume.VolumeSource)
	if noData(kind) || kind == kindHostPath || kind == kindClaim && s.CoreLeavesClaims {
		return false
	}

	mounts := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume.Name })
	})

	return mounts && pod.Status.Phase == corev1.PodRunning && (s.CoreNodes == nil || s.CoreNodes[pod.Spec.NodeName])
}

// What Velero's CSI action leaves on a claim in the tarball
// (velero v1.18.3 pkg/backup/actions/csi/pvc_action.go).
const (
	snapshotMark   = "velero.io/volume-snapshot-name"
	dataUploadMark = "velero.io/data-upload-name"
	backupMark     = "velero.io/backup-name"
)

// CSISnapshotted reports whether the claim, as Velero hands it to an action, says
// that the backup has taken a CSI snapshot of it. A restored claim may bear the
// marks of an older backup.
func CSISnapshotted(claim *corev1.PersistentVolumeClaim, backup string) bool {
	return claim.Labels[backupMark] == backup && (claim.Annotations[snapshotMark] != "" || claim.Annotations[dataUploadMark] != "")
}

// snapshotOf says how Velero takes a snapshot of a claim's volume where no
// volume policy says what is to be done with it; empty where it takes none. It
// takes none of a volume that its own file-system backup is to take from any pod,
// also where that pod doesn't run (velero v1.18.3 internal/volumehelper).
func (s *Settings) snapshotOf(c Claim, mounts []Carrier) string {
	if c.Snapshotted {
		return "Velero has taken a CSI snapshot of it"
	}

	if c.Volume == nil || slices.ContainsFunc(mounts, func(m Carrier) bool {
		return m.volume().PersistentVolumeClaim != nil && !s.CoreLeavesClaims && s.coreMeans(m.Pod, m.volume())
	}) {
		return ""
	}

	if want := snapshotter(c.Volume); want != "" {
		for _, provider := range s.Snapshotters {
			if strings.Contains(strings.ToLower(path.Base(provider)), want) {
				return fmt.Sprintf("Velero's volume snapshotter %s takes a snapshot of it (spec.snapshotVolumes of the Backup)", provider)
			}
		}
	}

	return ""
}

// snapshotter returns what the names of the snapshotters for such volumes hold; empty where there are none.
func snapshotter(pv *corev1.PersistentVolume) string {
	source := &pv.Spec.PersistentVolumeSource

	kind := typeOf(source)
	if source.CSI != nil {
		kind = source.CSI.Driver
	}

	switch kind {
	case "awsElasticBlockStore", "ebs.csi.aws.com":
		return "aws"
	case "azureDisk", "disk.csi.azure.com":
		return "azure"
	case "gcePersistentDisk", "pd.csi.storage.gke.io":
		return "gcp"
	case "cinder", "cinder.csi.openstack.org":
		return "openstack"
	case "portworxVolume":
		return "portworx"
	case "vsphereVolume":
		return "vsphere"
	default:
		return ""
	}
}
