package volumeselect

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// What Velero's CSI action leaves on a claim in the tarball
// (velero v1.18.3 pkg/backup/actions/csi/pvc_action.go).
const (
	snapshotMark   = "velero.io/volume-snapshot-name"
	dataUploadMark = "velero.io/data-upload-name"
	backupMark     = "velero.io/backup-name"
)

// alsoSnapshot says whether Velero takes a snapshot of a claim's volume, too,
// where no volume policy says what is to be done with it.
func alsoSnapshot(c Claim, settings Settings) string {
	const advice = "; give it to Estiba alone by a volume policy (custom, mover: estiba) or with --snapshot-volumes=false"

	a := c.Claim.Annotations
	// A restored claim may bear the marks of an older backup.
	if c.Claim.Labels[backupMark] == settings.Backup && (a[snapshotMark] != "" || a[dataUploadMark] != "") {
		return "Velero has taken a CSI snapshot of it, too: it is in the backup twice" + advice
	}

	if settings.NativeSnapshots && c.Volume != nil && snapshotter(c.Volume) {
		return "Velero's volume snapshotter may take a snapshot of it, too (spec.snapshotVolumes of the Backup)" + advice
	}

	return ""
}

// snapshotter tells whether Velero's plugins have a snapshotter for such volumes.
func snapshotter(pv *corev1.PersistentVolume) bool {
	if pv.Spec.CSI != nil {
		return slices.Contains([]string{"ebs.csi.aws.com", "disk.csi.azure.com", "pd.csi.storage.gke.io", "cinder.csi.openstack.org"}, pv.Spec.CSI.Driver)
	}

	s := pv.Spec.PersistentVolumeSource

	return s.AWSElasticBlockStore != nil || s.AzureDisk != nil || s.GCEPersistentDisk != nil || s.Cinder != nil ||
		s.PortworxVolume != nil || s.VsphereVolume != nil
}
