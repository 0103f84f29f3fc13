package jobs

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// NewBackup returns the VolumeBackup that the spec asks for, in Velero's
// namespace, to be done by the daemon of the node. An empty node leaves the
// routing to the controller.
func NewBackup(namespace, node string, spec v1alpha1.VolumeBackupSpec) *v1alpha1.VolumeBackup {
	l := map[string]string{
		contract.LabelBackupName: LabelValue(spec.Backup.Name),
		contract.LabelBackupUID:  string(spec.Backup.UID),
	}
	addClaim(l, spec.Volume)

	if node != "" {
		l[contract.LabelNode] = LabelValue(node)
	}

	return &v1alpha1.VolumeBackup{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      BackupJobName(spec.Backup.UID, spec.Volume),
			Labels:    l,
		},
		Spec: spec,
	}
}

// NewRestore returns the VolumeRestore that the spec asks for, in Velero's
// namespace. It carries no node: the pods that mount the target aren't scheduled yet.
func NewRestore(namespace string, spec v1alpha1.VolumeRestoreSpec) *v1alpha1.VolumeRestore {
	return &v1alpha1.VolumeRestore{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      RestoreJobName(spec.Restore.UID, spec.Target),
			Labels: map[string]string{
				contract.LabelRestoreName: LabelValue(spec.Restore.Name),
				contract.LabelRestoreUID:  string(spec.Restore.UID),
				contract.LabelBackupName:  LabelValue(spec.Snapshot.Backup.Name),
				// Velero offers to restore whatever it finds in a backup of its own
				// namespace; a job of an earlier restore must not be one of them.
				contract.LabelExcludeFromBackup: "true",
			},
		},
		Spec: spec,
	}
}

// NewDeletion returns the SnapshotDeletion that the spec asks for, in Velero's namespace.
func NewDeletion(namespace string, spec v1alpha1.SnapshotDeletionSpec) *v1alpha1.SnapshotDeletion {
	return &v1alpha1.SnapshotDeletion{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      DeletionJobName(spec.Snapshot),
			Labels: map[string]string{
				contract.LabelBackupName:        LabelValue(spec.Snapshot.Backup.Name),
				contract.LabelBackupUID:         string(spec.Snapshot.Backup.UID),
				contract.LabelExcludeFromBackup: "true",
			},
		},
		Spec: spec,
	}
}

// NewRepository returns the Repository of a namespace's volumes in a backup
// storage location, in Velero's namespace.
func NewRepository(namespace, location, volumesOf string) *v1alpha1.Repository {
	return &v1alpha1.Repository{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      RepositoryName(location, volumesOf),
			Labels:    map[string]string{contract.LabelExcludeFromBackup: "true"},
		},
		Spec: v1alpha1.RepositorySpec{BackupStorageLocation: location, Namespace: volumesOf},
	}
}

func addClaim(l map[string]string, v v1alpha1.VolumeReference) {
	if v.Claim != nil && v.Claim.UID != "" {
		l[contract.LabelClaimUID] = string(v.Claim.UID)
	}
}
