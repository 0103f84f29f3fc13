package jobs

import (
	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// ExpectedTags returns the tags that the snapshot must have, beside that of its job,
// if it is the one that the reference means: a job's name alone may be forged, or
// mixed up. They are those that no rename or mapping at restore changes.
func ExpectedTags(s v1alpha1.SnapshotReference, r v1alpha1.RepositoryReference) map[string]string {
	return map[string]string{contract.TagBackupUID: string(s.Backup.UID), contract.TagNamespace: r.Namespace}
}
