package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Repository is the kopia repository for the volumes of one namespace in one
// backup storage location. The controller finds it in the object store, or
// creates it there.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=erepo
// +kubebuilder:printcolumn:name="Storage Location",type=string,JSONPath=`.spec.backupStorageLocation`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.namespace`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="ID",type=string,JSONPath=`.status.id`
// +kubebuilder:printcolumn:name="Key Current",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="KeyCurrent")].status`
// +kubebuilder:printcolumn:name="Key",type=string,priority=1,JSONPath=`.status.keyFingerprint`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
type Repository struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what was asked for. It is immutable.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable"
	Spec RepositorySpec `json:"spec"`
	// Status is what was found or made.
	// +optional
	Status RepositoryStatus `json:"status,omitempty"`
}

// RepositorySpec says which repository is wanted.
type RepositorySpec struct {
	// BackupStorageLocation is the name of the Velero BackupStorageLocation, in the same namespace.
	// +kubebuilder:validation:MinLength=1
	BackupStorageLocation string `json:"backupStorageLocation"`
	// Namespace whose volumes the repository holds.
	// +kubebuilder:validation:MinLength=1
	Namespace string `json:"namespace"`
}

// RepositoryPhase is how usable a repository is.
//
// +kubebuilder:validation:Enum=New;Ready;NotReady
type RepositoryPhase string

// ConditionKeyCurrent is the type of the condition that tells whether the rotation of the
// master key is over for a Repository. It speaks of the key of status.keyFingerprint.
const ConditionKeyCurrent = "KeyCurrent"

// The phases of a Repository.
const (
	// RepositoryNew is one that nobody has looked at. An empty phase means the same.
	RepositoryNew RepositoryPhase = "New"
	// RepositoryReady is one that was opened with this install's key.
	RepositoryReady RepositoryPhase = "Ready"
	// RepositoryNotReady is one that could not be found, made or opened; reason and message say why. It is retried.
	RepositoryNotReady RepositoryPhase = "NotReady"
)

// RepositoryStatus is what was found or made.
type RepositoryStatus struct {
	// Phase of the repository.
	// +optional
	Phase RepositoryPhase `json:"phase,omitempty"`
	// Reason for the phase in one word, for programs.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message for people: what was attempted, on what, and what to do.
	// +optional
	Message string `json:"message,omitempty"`
	// ID of the repository: random, 26 characters of lower-case base32.
	// +optional
	ID string `json:"id,omitempty"`
	// Path of the repository below the backup storage location's prefix.
	// +optional
	Path string `json:"path,omitempty"`
	// Place is a digest of where the BackupStorageLocation pointed when the repository of this ID was found
	// there, or made: of its provider, bucket, prefix and config.
	// +optional
	Place string `json:"place,omitempty"`
	// KeyFingerprint is the fingerprint of the master key that opens the repository.
	// +optional
	KeyFingerprint string `json:"keyFingerprint,omitempty"`
	// LastCheckedTimestamp is when the repository was last looked at.
	// +optional
	LastCheckedTimestamp *metav1.Time `json:"lastCheckedTimestamp,omitempty"`
	// Conditions: KeyCurrent (whether all repositories of the namespace in the location are
	// opened by the current master key alone, and what a rotation waits for).
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RepositoryList is a list of Repositories.
//
// +kubebuilder:object:root=true
type RepositoryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Repository `json:"items"`
}
