package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// The prefixes of job names tell a job's kind.
const (
	// BackupPrefix begins the name of every VolumeBackup.
	BackupPrefix = "vb-"
	// RestorePrefix begins the name of every VolumeRestore.
	RestorePrefix = "vr-"
	// DeletionPrefix begins the name of every SnapshotDeletion.
	DeletionPrefix = "sd-"
)

// hashLength is how many hexadecimal digits of the hash a name holds: 160 bits,
// so that nobody can find two volumes with one name.
const hashLength = 40

// BackupJobName returns the name of the VolumeBackup of the volume in the Velero
// Backup with that UID. Whoever asks for the same volume in the same backup
// gets the same name: a claim that many pods mount is moved once.
func BackupJobName(backupUID types.UID, volume v1alpha1.VolumeReference) string {
	return BackupPrefix + digest(string(backupUID), identity(volume, true))
}

// RestoreJobName returns the name of the VolumeRestore that fills the target in
// the Velero Restore with that UID. UIDs of the target don't count: it doesn't
// exist yet. Pods that share a claim share the job.
func RestoreJobName(restoreUID types.UID, target v1alpha1.VolumeReference) string {
	return RestorePrefix + digest(string(restoreUID), identity(target, false))
}

// DeletionJobName returns the name of the SnapshotDeletion for the snapshot that a job took.
func DeletionJobName(snapshot v1alpha1.SnapshotReference) string {
	return DeletionPrefix + digest(snapshot.Backup.Name, string(snapshot.Backup.UID), snapshot.Job)
}

// repositoryHashLength is short because the name begins with the namespace:
// it only has to tell the locations of one namespace apart.
const repositoryHashLength = 16

// RepositoryName returns the name of the Repository of a namespace's volumes in a
// backup storage location. It begins with the namespace, for people.
func RepositoryName(location, namespace string) string {
	return namespace + "-" + digest(location, namespace)[:repositoryHashLength]
}

// LabelValue returns the value of a label that stands for a name: the name
// itself where it fits in 63 characters, else its beginning and six digits of
// its hash. Velero shortens the names in its own labels in the same way
// (velero v1.18.3 pkg/label/label.go).
func LabelValue(name string) string {
	const digits = 6

	if len(name) <= validation.LabelValueMaxLength {
		return name
	}

	sum := sha256.Sum256([]byte(name))

	return name[:validation.LabelValueMaxLength-digits] + hex.EncodeToString(sum[:])[:digits]
}

func identity(v v1alpha1.VolumeReference, withUID bool) string {
	parts := []string{"pod", v.Namespace, v.Pod.Name}
	uid := v.Pod.UID

	if v.Claim != nil {
		parts = []string{"pvc", v.Namespace, v.Claim.Name}
		uid = v.Claim.UID
	}

	if withUID {
		parts = append(parts, string(uid))
	}

	if v.Claim == nil {
		parts = append(parts, v.Name)
	}

	return strings.Join(parts, "/")
}

// digest hashes the parts. A NUL, which no part can hold, keeps them apart.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))

	return hex.EncodeToString(sum[:])[:hashLength]
}
