package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Phase is where a job stands. New, Accepted, InProgress and Canceling are
// passed through; Completed, Failed and Canceled are final and never left.
//
// +kubebuilder:validation:Enum=New;Accepted;InProgress;Canceling;Completed;Failed;Canceled
type Phase string

// The phases of a job.
const (
	// PhaseNew is a job that nobody has looked at. An empty phase means the same.
	PhaseNew Phase = "New"
	// PhaseAccepted is a job that the mover has taken on; it waits for a slot,
	// for its pod or for its gate.
	PhaseAccepted Phase = "Accepted"
	// PhaseInProgress is a job whose worker runs.
	PhaseInProgress Phase = "InProgress"
	// PhaseCanceling is a job whose worker has been told to stop.
	PhaseCanceling Phase = "Canceling"
	// PhaseCompleted is a job that did all that was asked, read back and found right.
	PhaseCompleted Phase = "Completed"
	// PhaseFailed is a job that ended without doing what was asked; reason and message say why.
	PhaseFailed Phase = "Failed"
	// PhaseCanceled is a job that was stopped because somebody asked for it.
	PhaseCanceled Phase = "Canceled"
)

// Terminal reports whether the phase is final.
func (p Phase) Terminal() bool {
	return p == PhaseCompleted || p == PhaseFailed || p == PhaseCanceled
}

// OwnerReference names the Velero object on whose behalf a job runs.
type OwnerReference struct {
	// Name of the Velero Backup or Restore, in the job's own namespace.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// UID of that object.
	UID types.UID `json:"uid"`
}

// RepositoryReference names one kopia repository in one backup storage location.
type RepositoryReference struct {
	// BackupStorageLocation is the name of the Velero BackupStorageLocation, in
	// the job's own namespace, that holds the repository.
	// +kubebuilder:validation:MinLength=1
	BackupStorageLocation string `json:"backupStorageLocation"`
	// Namespace whose volumes the repository holds: the namespace that the
	// volumes were backed up from, not the one they are restored to.
	// +kubebuilder:validation:MinLength=1
	Namespace string `json:"namespace"`
	// ID of the repository: 26 characters, lower-case base32.
	// +kubebuilder:validation:Pattern=`^[a-z2-7]{26}$`
	ID string `json:"id"`
}

// VolumeKind is the sort of a volume, as far as finding it on a node goes.
//
// +kubebuilder:validation:Enum=PersistentVolumeClaim;EmptyDir;NFS;CSI;HostPath
type VolumeKind string

// The kinds of volume that can be moved.
const (
	// VolumePersistentVolumeClaim is a volume behind a PersistentVolumeClaim.
	VolumePersistentVolumeClaim VolumeKind = "PersistentVolumeClaim"
	// VolumeEmptyDir is an emptyDir of one pod.
	VolumeEmptyDir VolumeKind = "EmptyDir"
	// VolumeNFS is an NFS volume that one pod mounts without a claim.
	VolumeNFS VolumeKind = "NFS"
	// VolumeCSI is an ephemeral volume of a CSI driver that one pod mounts without a claim.
	VolumeCSI VolumeKind = "CSI"
	// VolumeHostPath is a folder of the node that one pod mounts without a claim.
	VolumeHostPath VolumeKind = "HostPath"
)

// PodReference names one pod.
type PodReference struct {
	// Name of the pod.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// UID of the pod; empty only where the pod does not exist yet (a restore).
	// +optional
	UID types.UID `json:"uid,omitempty"`
}

// ClaimReference names a PersistentVolumeClaim and the volume it is bound to.
type ClaimReference struct {
	// Name of the PersistentVolumeClaim.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// UID of the PersistentVolumeClaim; empty only where it does not exist yet (a restore).
	// +optional
	UID types.UID `json:"uid,omitempty"`
	// PersistentVolume is the name of the volume that the claim is bound to; empty for a restore.
	// +optional
	PersistentVolume string `json:"persistentVolume,omitempty"`
	// PersistentVolumeUID is the UID of that volume; empty for a restore.
	// +optional
	PersistentVolumeUID types.UID `json:"persistentVolumeUID,omitempty"`
}

// VolumeReference names one volume through a pod that mounts it, or, where it
// is to be restored, through its claim alone.
//
// +kubebuilder:validation:XValidation:rule="(self.kind == 'PersistentVolumeClaim') == has(self.claim)",message="claim is for volumes of kind PersistentVolumeClaim, and they need it"
// +kubebuilder:validation:XValidation:rule="has(self.claim) || (has(self.pod) && has(self.name))",message="a volume without a claim is named by its pod and by its name there"
type VolumeReference struct {
	// Kind of the volume.
	Kind VolumeKind `json:"kind"`
	// Namespace of the pod and the claim.
	// +kubebuilder:validation:MinLength=1
	Namespace string `json:"namespace"`
	// Pod that mounts the volume. A claim needs none: for a restore all pods that mount the claim are
	// looked for, and for a backup one of them is, or a staging pod is made.
	// +optional
	Pod PodReference `json:"pod,omitzero"`
	// Name of the volume in the pod's spec.volumes.
	// +optional
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name,omitempty"`
	// Claim behind the volume.
	// +optional
	Claim *ClaimReference `json:"claim,omitempty"`
}

// Progress counts what a job has done.
type Progress struct {
	// BytesDone is the number of bytes of file content that are dealt with, in bytes.
	BytesDone int64 `json:"bytesDone,omitempty"`
	// TotalBytes is the best estimate of all bytes of file content, in bytes; 0 while unknown.
	TotalBytes int64 `json:"totalBytes,omitempty"`
	// FilesDone is the number of regular files that are dealt with.
	FilesDone int64 `json:"filesDone,omitempty"`
	// TotalFiles is the best estimate of all regular files; 0 while unknown.
	TotalFiles int64 `json:"totalFiles,omitempty"`
	// Text says for people how many bytes are done, and of how many, such as "1.2 GiB of 3.4 GiB".
	// +optional
	Text string `json:"text,omitempty"`
}

// ConditionNothingOmitted is the type of the condition that says whether a completed job
// left out anything that somebody could miss.
const ConditionNothingOmitted = "NothingOmitted"

// Omission counts entries, or attributes of entries, that a job met and could
// not keep, by the reason.
type Omission struct {
	// Reason in one word, such as Socket, ExtendedAttributes or HardLink.
	Reason string `json:"reason"`
	// Count of the entries concerned.
	Count int64 `json:"count"`
	// Examples are the first few paths, relative to the volume's root, quoted as Go strings.
	// +optional
	// +kubebuilder:validation:MaxItems=10
	Examples []string `json:"examples,omitempty"`
}

// Summary counts what was moved.
type Summary struct {
	// Files is the number of regular files.
	Files int64 `json:"files,omitempty"`
	// Directories is the number of directories, the root included.
	Directories int64 `json:"directories,omitempty"`
	// Symlinks is the number of symbolic links.
	Symlinks int64 `json:"symlinks,omitempty"`
	// Bytes is the size of all regular files, in bytes.
	Bytes int64 `json:"bytes,omitempty"`
	// ReadBytes is what had to be read from the volume, in bytes.
	ReadBytes int64 `json:"readBytes,omitempty"`
	// StoredBytes is what had to be written to the object store, in bytes, after
	// deduplication and compression, the repository's own records included.
	StoredBytes int64 `json:"storedBytes,omitempty"`
	// NewData is StoredBytes for people, such as "20.5 MiB"; empty where nothing was to be stored.
	// +optional
	NewData string `json:"newData,omitempty"`
	// Omissions list what could not be kept. Empty means that all was kept.
	// +optional
	Omissions []Omission `json:"omissions,omitempty"`
}

// JobStatus is what every job reports.
type JobStatus struct {
	// Phase of the job.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// Reason for the phase in one word, for programs; see the reference of reasons in the documentation.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message for people: what was attempted, on what, and what to do.
	// +optional
	Message string `json:"message,omitempty"`
	// Node that works on the job.
	// +optional
	Node string `json:"node,omitempty"`
	// AcceptedTimestamp is when the mover took the job on.
	// +optional
	AcceptedTimestamp *metav1.Time `json:"acceptedTimestamp,omitempty"`
	// StartTimestamp is when the worker was started.
	// +optional
	StartTimestamp *metav1.Time `json:"startTimestamp,omitempty"`
	// CompletionTimestamp is when the job reached a final phase.
	// +optional
	CompletionTimestamp *metav1.Time `json:"completionTimestamp,omitempty"`
	// Progress so far.
	// +optional
	Progress Progress `json:"progress,omitzero"`
	// Attempts counts how often a worker was started for the job.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
	// Interruptions counts how many of the attempts ended because their daemon did: they have not failed.
	// +optional
	Interruptions int32 `json:"interruptions,omitempty"`
	// Conditions: Ready (what the job waits for), Fenced (which fences the worker ran behind),
	// CancelRequested (why the controller has asked for its end), NothingOmitted (whether a
	// completed job left out anything that somebody could miss), OperationLost (Velero has
	// forgotten to ask for the job), ClaimMarked (what a restore found of its claim).
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AnnotationOperationTimeout on a job says that Velero has asked for the job's end, because the
// operation took longer than this bound, such as "4h0m0s".
const AnnotationOperationTimeout = "estiba.dev/operation-timeout"
