package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// VolumeRestore asks the mover to write one snapshot into one volume, while
// every pod that mounts the volume waits at its gate.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=vr
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Started",type=date,JSONPath=`.status.startTimestamp`
// +kubebuilder:printcolumn:name="Bytes Done",type=integer,format=int64,JSONPath=`.status.progress.bytesDone`
// +kubebuilder:printcolumn:name="Total Bytes",type=integer,format=int64,JSONPath=`.status.progress.totalBytes`
// +kubebuilder:printcolumn:name="Storage Location",type=string,JSONPath=`.spec.repository.backupStorageLocation`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.target.namespace`
// +kubebuilder:printcolumn:name="Claim",type=string,JSONPath=`.spec.target.claim.name`
// +kubebuilder:printcolumn:name="Volume",type=string,JSONPath=`.spec.target.name`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.node`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type VolumeRestore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what was asked for. All of it but cancel is immutable.
	Spec VolumeRestoreSpec `json:"spec"`
	// Status is what has become of it.
	// +optional
	Status VolumeRestoreStatus `json:"status,omitempty"`
}

// VolumeRestoreSpec is what was asked for.
//
// +kubebuilder:validation:XValidation:rule="self.restore == oldSelf.restore && self.repository == oldSelf.repository && self.snapshot == oldSelf.snapshot && self.target == oldSelf.target",message="spec is immutable, except for cancel"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="cancel can't be taken back"
type VolumeRestoreSpec struct {
	// Restore is the Velero Restore that the job belongs to.
	Restore OwnerReference `json:"restore"`
	// Repository that the snapshot comes from.
	Repository RepositoryReference `json:"repository"`
	// Snapshot to restore.
	Snapshot SnapshotReference `json:"snapshot"`
	// Target volume, in the namespace that it is restored to.
	Target VolumeReference `json:"target"`
	// Cancel asks for the job to be stopped. It can't be taken back.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// SnapshotReference names a snapshot by what was known when the backup began.
type SnapshotReference struct {
	// Job is the name of the VolumeBackup that took the snapshot; the snapshot carries it as a tag.
	// +kubebuilder:validation:MinLength=1
	Job string `json:"job"`
	// Backup that the snapshot belongs to. The UID is the one it had in the cluster that took it.
	Backup OwnerReference `json:"backup"`
}

// VolumeRestoreStatus is what has become of a VolumeRestore.
type VolumeRestoreStatus struct {
	JobStatus `json:",inline"`

	// SnapshotID is the ID of the kopia snapshot manifest that was restored.
	// +optional
	SnapshotID string `json:"snapshotID,omitempty"`
	// Pod through whose mount the volume is written.
	// +optional
	Pod *PodReference `json:"pod,omitempty"`
	// ClaimUID is the UID of the PersistentVolumeClaim that the data was written
	// into; empty for an emptyDir. A claim of the same name made later is another one.
	// +optional
	ClaimUID types.UID `json:"claimUID,omitempty"`
	// Summary of what was moved.
	// +optional
	Summary Summary `json:"summary,omitzero"`
}

// VolumeRestoreList is a list of VolumeRestores.
//
// +kubebuilder:object:root=true
type VolumeRestoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VolumeRestore `json:"items"`
}
