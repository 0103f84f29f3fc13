package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of all kinds.
const GroupName = "estiba.dev"

// SchemeGroupVersion is the group and version of the kinds in this package.
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// AddToScheme registers the kinds of this package with s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(SchemeGroupVersion,
		&VolumeBackup{}, &VolumeBackupList{},
		&VolumeRestore{}, &VolumeRestoreList{},
		&SnapshotDeletion{}, &SnapshotDeletionList{},
		&Repository{}, &RepositoryList{},
	)
	metav1.AddToGroupVersion(s, SchemeGroupVersion)

	return nil
}
