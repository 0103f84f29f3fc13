package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SnapshotDeletion asks the mover to forget the snapshot of one volume of a
// deleted Velero backup. It is retried until the repository confirms it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sd
// +kubebuilder:printcolumn:name="Backup",type=string,JSONPath=`.spec.snapshot.backup.name`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.repository.namespace`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Attempts",type=integer,JSONPath=`.status.attempts`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Storage Location",type=string,priority=1,JSONPath=`.spec.repository.backupStorageLocation`
// +kubebuilder:printcolumn:name="Repository",type=string,priority=1,JSONPath=`.spec.repository.id`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type SnapshotDeletion struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what was asked for. It is immutable.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable"
	Spec SnapshotDeletionSpec `json:"spec"`
	// Status is what has become of it.
	// +optional
	Status SnapshotDeletionStatus `json:"status,omitempty"`
}

// SnapshotDeletionSpec is what was asked for. It holds all that is needed: the
// Backup, and perhaps its storage location's object, are about to vanish.
type SnapshotDeletionSpec struct {
	// Repository that holds the snapshot.
	Repository RepositoryReference `json:"repository"`
	// Snapshot to forget.
	Snapshot SnapshotReference `json:"snapshot"`
}

// SnapshotDeletionStatus is what has become of a SnapshotDeletion.
type SnapshotDeletionStatus struct {
	JobStatus `json:",inline"`

	// Deleted is the number of snapshot manifests that were removed; 0 when there was none left.
	// +optional
	Deleted int32 `json:"deleted,omitempty"`
}

// SnapshotDeletionList is a list of SnapshotDeletions.
//
// +kubebuilder:object:root=true
type SnapshotDeletionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SnapshotDeletion `json:"items"`
}
