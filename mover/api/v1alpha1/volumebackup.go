package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VolumeBackup asks the mover to take one snapshot of one volume.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=vb
// +kubebuilder:printcolumn:name="Backup",type=string,JSONPath=`.spec.backup.name`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.volume.namespace`
// +kubebuilder:printcolumn:name="Volume",type=string,JSONPath=`.spec.volume.name`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Done",type=string,JSONPath=`.status.progress.text`
// +kubebuilder:printcolumn:name="New Data",type=string,JSONPath=`.status.summary.newData`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.node`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Storage Location",type=string,priority=1,JSONPath=`.spec.repository.backupStorageLocation`
// +kubebuilder:printcolumn:name="Repository",type=string,priority=1,JSONPath=`.spec.repository.id`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type VolumeBackup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what was asked for. All of it but cancel is immutable.
	Spec VolumeBackupSpec `json:"spec"`
	// Status is what has become of it.
	// +optional
	Status VolumeBackupStatus `json:"status,omitempty"`
}

// VolumeBackupSpec is what was asked for.
//
// +kubebuilder:validation:XValidation:rule="self.backup == oldSelf.backup && self.repository == oldSelf.repository && self.volume == oldSelf.volume && self.source == oldSelf.source && self.requestedBy == oldSelf.requestedBy && self.options == oldSelf.options",message="spec is immutable, except for cancel"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="cancel can't be taken back"
type VolumeBackupSpec struct {
	// Backup is the Velero Backup that the snapshot belongs to.
	Backup OwnerReference `json:"backup"`
	// Repository that the snapshot goes to.
	Repository RepositoryReference `json:"repository"`
	// Volume to take a snapshot of. One of a claim that names no pod is read through
	// a pod that the controller finds, or through a staging pod that it makes.
	Volume VolumeReference `json:"volume"`
	// Source is the identity that the chain of the volume's snapshots follows.
	Source SourceIdentity `json:"source"`
	// RequestedBy names the item whose Velero operation reports this job.
	RequestedBy RequestedBy `json:"requestedBy"`
	// Options of the job; an empty object asks for the defaults.
	Options BackupOptions `json:"options"`
	// Cancel asks for the job to be stopped. It can't be taken back.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// SourceIdentity says which snapshots are of the same volume, and which of them
// are of the very same instance of it.
type SourceIdentity struct {
	// Path that the chain of snapshots follows, such as /persistentvolumeclaim/data
	// or /statefulset/web/0/cache.
	// +kubebuilder:validation:MinLength=1
	Path string `json:"path"`
	// Instance of the volume: snapshots of the same path and another instance
	// save storage only, never reading.
	// +kubebuilder:validation:MinLength=1
	Instance string `json:"instance"`
}

// RequestedBy is the kind of item on whose operation a job is reported.
//
// +kubebuilder:validation:Enum=Pod;PersistentVolumeClaim
type RequestedBy string

// The items that ask for jobs.
const (
	// RequestedByPod marks a job that a pod's operation reports.
	RequestedByPod RequestedBy = "Pod"
	// RequestedByClaim marks a job that a PersistentVolumeClaim's operation reports.
	RequestedByClaim RequestedBy = "PersistentVolumeClaim"
)

// BackupOptions tune one VolumeBackup.
type BackupOptions struct {
	// Frozen says that the application is quiesced by a hook until the job ends:
	// the job doesn't wait for a slot, and is cancelled at its deadline.
	// +optional
	Frozen bool `json:"frozen,omitempty"`
	// Deadline for the whole job, counted from its creation; none if absent.
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
}

// VolumeBackupStatus is what has become of a VolumeBackup.
type VolumeBackupStatus struct {
	JobStatus `json:",inline"`

	// SnapshotID is the ID of the kopia snapshot manifest. It is set only when the
	// snapshot is flushed, listed and read back.
	// +optional
	SnapshotID string `json:"snapshotID,omitempty"`
	// Pod that the controller has chosen to read the volume through, where the spec names none.
	// +optional
	Pod *PodReference `json:"pod,omitempty"`
	// Incremental says that unchanged files were taken from an earlier snapshot of
	// the same instance without reading them.
	// +optional
	Incremental bool `json:"incremental,omitempty"`
	// LostPacks is the number of blobs of the repository (packs, which hold the content of
	// many files, and indexes) that the store was found to have lost, cut or altered. What the
	// volume still had of them was uploaded again; earlier snapshots that need them are damaged.
	// +optional
	LostPacks int64 `json:"lostPacks,omitempty"`
	// Summary of what was moved.
	// +optional
	Summary Summary `json:"summary,omitzero"`
}

// VolumeBackupList is a list of VolumeBackups.
//
// +kubebuilder:object:root=true
type VolumeBackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VolumeBackup `json:"items"`
}
