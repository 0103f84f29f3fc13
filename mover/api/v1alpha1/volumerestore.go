package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// VolumeRestore asks the mover to write one snapshot into one volume, while
// no pod that mounts the volume is past its gate, or has none.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=vr
// +kubebuilder:printcolumn:name="Restore",type=string,JSONPath=`.spec.restore.name`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.target.namespace`
// +kubebuilder:printcolumn:name="PVC",type=string,JSONPath=`.spec.target.claim.name`
// +kubebuilder:printcolumn:name="Volume",type=string,JSONPath=`.spec.target.name`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Done",type=string,JSONPath=`.status.progress.text`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.node`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Storage Location",type=string,priority=1,JSONPath=`.spec.repository.backupStorageLocation`
// +kubebuilder:printcolumn:name="Repository",type=string,priority=1,JSONPath=`.spec.repository.id`
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
// +kubebuilder:validation:XValidation:rule="self.restore == oldSelf.restore && self.repository == oldSelf.repository && self.snapshot == oldSelf.snapshot && self.target == oldSelf.target && self.existingData == oldSelf.existingData && self.onMissingSnapshot == oldSelf.onMissingSnapshot && self.onFileError == oldSelf.onFileError && has(self.previous) == has(oldSelf.previous) && (!has(self.previous) || self.previous == oldSelf.previous) && has(self.original) == has(oldSelf.original) && (!has(self.original) || self.original == oldSelf.original)",message="spec is immutable, except for cancel"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="cancel can't be taken back"
// +kubebuilder:validation:XValidation:rule="self.onMissingSnapshot != 'previous' || has(self.previous)",message="onMissingSnapshot 'previous' needs the field previous"
type VolumeRestoreSpec struct {
	// Restore is the Velero Restore that the job belongs to.
	Restore OwnerReference `json:"restore"`
	// Repository that the snapshot comes from.
	Repository RepositoryReference `json:"repository"`
	// Snapshot to restore.
	Snapshot SnapshotReference `json:"snapshot"`
	// Target volume, in the namespace that it is restored to.
	Target VolumeReference `json:"target"`
	// ExistingData says what becomes of data that is in the volume already.
	// +kubebuilder:default=refuse
	// +optional
	ExistingData ExistingData `json:"existingData,omitempty"`
	// OnMissingSnapshot says what to do if the repository has no finished snapshot of the job.
	// +kubebuilder:default=fail
	// +optional
	OnMissingSnapshot OnMissingSnapshot `json:"onMissingSnapshot,omitempty"`
	// OnFileError says what becomes of a file that the repository can't give back, or that can't be written.
	// +kubebuilder:default=fail
	// +optional
	OnFileError OnFileError `json:"onFileError,omitempty"`
	// Previous says which snapshots may stand in, where onMissingSnapshot is previous.
	// +optional
	Previous *PreviousSnapshot `json:"previous,omitempty"`
	// Original says how the volume was that the claim was bound to when it was backed up. It
	// is put back on the claim's PersistentVolume if that was made for this restore.
	// +optional
	Original *OriginalVolume `json:"original,omitempty"`
	// Cancel asks for the job to be stopped. It can't be taken back.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// ExistingData is what a restore does about data that it finds in the volume.
//
// +kubebuilder:validation:Enum=refuse;overwrite;mirror;keep
type ExistingData string

// What there is to do about it.
const (
	// ExistingRefuse restores into an empty volume only; the job fails where it isn't.
	ExistingRefuse ExistingData = "refuse"
	// ExistingOverwrite replaces what bears a name that the snapshot has, and leaves the rest.
	ExistingOverwrite ExistingData = "overwrite"
	// ExistingMirror removes, too, what the snapshot does not have.
	ExistingMirror ExistingData = "mirror"
	// ExistingKeep leaves a volume that holds data of its own as it is, and restores into an empty one.
	ExistingKeep ExistingData = "keep"
)

// OnMissingSnapshot is what a restore does if there is no snapshot to restore.
//
// +kubebuilder:validation:Enum=fail;empty;previous
type OnMissingSnapshot string

// What there is to do about it.
const (
	// MissingFail lets the job fail.
	MissingFail OnMissingSnapshot = "fail"
	// MissingEmpty leaves the volume as it is; the job is completed, and says so.
	MissingEmpty OnMissingSnapshot = "empty"
	// MissingPrevious restores the newest older snapshot of the same source, and says which one.
	MissingPrevious OnMissingSnapshot = "previous"
)

// OnFileError is what a restore does about a file that it can't restore.
//
// +kubebuilder:validation:Enum=fail;skip
type OnFileError string

// What there is to do about it.
const (
	// FileErrorFail lets the job fail.
	FileErrorFail OnFileError = "fail"
	// FileErrorSkip leaves the file out; the job is completed, and names it.
	FileErrorSkip OnFileError = "skip"
)

// SnapshotReference names a snapshot by what was known when the backup began.
type SnapshotReference struct {
	// Job is the name of the VolumeBackup that took the snapshot; the snapshot carries it as a tag.
	// +kubebuilder:validation:MinLength=1
	Job string `json:"job"`
	// Backup that the snapshot belongs to. The UID is the one it had in the cluster that took it.
	Backup OwnerReference `json:"backup"`
}

// PreviousSnapshot describes the snapshots that may stand in for a missing one.
type PreviousSnapshot struct {
	// Source is the path that the chain of the volume's snapshots follows, such as
	// /persistentvolumeclaim/data. Only snapshots of that path count, and only those
	// of volumes of the repository's namespace.
	// +kubebuilder:validation:MinLength=1
	Source string `json:"source"`
	// Before is when the backup was begun whose snapshot is missing. Only older ones count.
	Before metav1.Time `json:"before"`
}

// OriginalVolume is what of a PersistentVolume is put back on the one in its place.
type OriginalVolume struct {
	// ReclaimPolicy of the volume. Retain and Delete are put back; others are left as the StorageClass has them.
	// +optional
	ReclaimPolicy string `json:"reclaimPolicy,omitempty"`
	// Labels of the volume. Those that the new one has, too, stay as they are there; those of Kubernetes,
	// Velero and topologies say something about the old volume alone, and are left out.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
}

// ConditionClaimMarked is the type of the condition that says what was found when the claim of a
// VolumeRestore was marked as one that isn't filled. It is written down before the claim is
// changed, and False if the claim may not be.
const ConditionClaimMarked = "ClaimMarked"

// VolumeRestoreStatus is what has become of a VolumeRestore.
type VolumeRestoreStatus struct {
	JobStatus `json:",inline"`

	// SnapshotID is the ID of the kopia snapshot manifest that was restored, or that the job has begun to
	// write; empty where none was. A later run of the job writes no other one over it.
	// +optional
	SnapshotID string `json:"snapshotID,omitempty"`
	// SnapshotTimestamp is when the snapshot was taken that was restored in the place of a missing one.
	// +optional
	SnapshotTimestamp *metav1.Time `json:"snapshotTimestamp,omitempty"`
	// WritingSince is when a worker of the job was let to write into the volume. It is set
	// before anything is written: whatever is in the volume later on may be the job's own.
	// +optional
	WritingSince *metav1.Time `json:"writingSince,omitempty"`
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
