// Package v1alpha1 holds the kinds of the API group estiba.dev: VolumeBackup,
// VolumeRestore, SnapshotDeletion and Repository. They are what the plugins ask
// for and what the mover reports; all live in Velero's own namespace.
//
// The package holds types only. It must not import anything but the Kubernetes
// API machinery, so that the plugins can load it cheaply.
//
// +kubebuilder:object:generate=true
// +groupName=estiba.dev
package v1alpha1
