package app

import (
	"fmt"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

// remedyForData is about a volume, and not about any repository.
const remedyForData = "delete the pod, and the claim too to get an empty volume, and restore again; or delete the pod and restore again with the annotation " +
	contract.AnnotationExistingData + " on the Restore: keep (what is there stays, and the pod starts on it), or, to give it up, overwrite (other files stay) or mirror (they are deleted)"

// remedyForHung is about a volume, too.
const remedyForHung = "see whether the storage behind the volume answers on this node (its disk, or the server behind its mount); what hangs ends when that does, or when the node is started anew"

// remedied returns a failure's message with the objects behind it, which a worker
// does not know, and with what a person can do about it.
func remedied(code engine.Code, message string, r v1alpha1.RepositoryReference) string {
	if code == engine.CodeTargetNotEmpty {
		return message + "; " + remedyForData
	}

	if code == engine.CodeVolumeHung {
		return message + "; " + remedyForHung
	}

	remedy := remedyOf(code, r.BackupStorageLocation)
	if remedy == "" {
		return message
	}

	if code == engine.CodeWrongKey {
		remedy += fingerprintOf(r)
	}

	return fmt.Sprintf("%s (repository %s of namespace %s in BackupStorageLocation %s); %s", message, r.ID, r.Namespace, r.BackupStorageLocation, remedy)
}

// fingerprintOf returns where the fingerprint of a repository's key is; an export names that of its own.
func fingerprintOf(r v1alpha1.RepositoryReference) string {
	path, err := contract.KeyPath(r.Namespace, r.ID)
	if err != nil {
		return ""
	}

	return "; the fingerprint of the right key is in " + path + " of BackupStorageLocation " + r.BackupStorageLocation
}

func remedyOf(code engine.Code, location string) string {
	switch code {
	case engine.CodeStoreUnavailable, engine.CodeStoreStalled:
		return "see that the store answers from this node, and what kubectl describe backupstoragelocation " + location + " says"
	case engine.CodeStoreLostWrite:
		return "the store confirmed what it does not hold: see to the store before the next backup"
	case engine.CodeStoreFull:
		return "make room in the store, or raise its quota; to delete backups (velero backup delete) frees nothing of what Estiba has stored yet"
	case engine.CodeClockSkewed:
		return "set the clock of the node (or that of the store) by NTP"
	case engine.CodeStoreReadOnly:
		return "the location is read-only (spec.accessMode): use another one"
	case engine.CodeCredentialsInvalid:
		return "put valid credentials into the Secret that the location names (spec.credential), or into Velero's own; or see to the role of the service accounts estiba-node and estiba-controller"
	case engine.CodeRepositoryNotFound:
		return "the repository was removed from the bucket, or the location points elsewhere now: see its spec.objectStorage and spec.config"
	case engine.CodeRepositoryDamaged:
		return "blobs of it are missing or altered in the bucket: bring them back (versions or replicas of the bucket), or restore another backup"
	case engine.CodeWrongKey:
		return "it was made with another master key: put the exported Secret " + contract.MasterKeySecret + " of that key back (kubectl replace --force -f FILE)"
	case engine.CodeInvalidRequest:
		return "see what spec.objectStorage and spec.config of the location say (kubectl describe backupstoragelocation " + location + ")"
	case engine.CodeSnapshotNotFound:
		return "the volume's backup did not complete, or its snapshot was deleted: restore another backup, or say with the annotation " +
			contract.AnnotationOnMissingSnapshot + " of the Restore what to do without it"
	default:
		return ""
	}
}
