package contract

// Tags on a kopia snapshot manifest. They say the same as the records in the
// tarball, so that either is enough to find the other.
const (
	// TagVersion is the version of the tags; its value is TagVersionValue.
	TagVersion = "estiba-version"
	// TagVersionValue is the version that this release writes.
	TagVersionValue = "1"
	// TagJob is the name of the VolumeBackup that took the snapshot.
	TagJob = "estiba-job"
	// TagBackup is the name of the Velero Backup.
	TagBackup = "estiba-backup"
	// TagBackupUID is the UID of the Velero Backup in the cluster that took it.
	TagBackupUID = "estiba-backup-uid"
	// TagInstance is the instance of the volume; see Source.
	TagInstance = "estiba-instance"
	// TagNamespace is the namespace of the volume.
	TagNamespace = "estiba-namespace"
	// TagPod is the name of the pod through which the volume was read.
	TagPod = "estiba-pod"
	// TagVolume is the name of the volume in that pod.
	TagVolume = "estiba-volume"
	// TagAllocated is what the files of the snapshot took up where they were, in bytes: their size
	// without the holes. The engine adds it to the others; snapshots of earlier releases have none.
	TagAllocated = "estiba-allocated"
	// TagReadBack says up to which blobs the backup has read back what it takes over, one of each
	// kind; the next one begins there. Any value is a place to begin.
	TagReadBack = "estiba-read-back"
)

// Snapshot is what the tags of a snapshot say.
type Snapshot struct {
	Job       string
	Backup    Owner
	Instance  string
	Namespace string
	Pod       string
	Volume    string
}

// Tags returns the tags of the snapshot.
func (s Snapshot) Tags() map[string]string {
	return map[string]string{
		TagVersion:   TagVersionValue,
		TagJob:       s.Job,
		TagBackup:    s.Backup.Name,
		TagBackupUID: s.Backup.UID,
		TagInstance:  s.Instance,
		TagNamespace: s.Namespace,
		TagPod:       s.Pod,
		TagVolume:    s.Volume,
	}
}
