package contract

// Annotations and labels that users set.
const (
	// AnnotationBackupVolumes on a pod lists the volumes to move: names or
	// globs, separated by commas; spaces around them are ignored.
	AnnotationBackupVolumes = "estiba.dev/backup-volumes"
	// AnnotationBackupVolumesExcludes on a pod lists volumes that are not moved, in the same form.
	AnnotationBackupVolumesExcludes = "estiba.dev/backup-volumes-excludes"
	// AnnotationFreezeTimeout on a Velero Backup or Schedule says for how long hooks may keep an
	// application quiesced while its volumes are moved, as a duration such as "45m".
	AnnotationFreezeTimeout = "estiba.dev/freeze-timeout"
	// AnnotationBackup on a PersistentVolumeClaim says whether its volume is moved: "true" or "false".
	AnnotationBackup = "estiba.dev/backup"
	// AnnotationDefaultVolumes on a Velero Backup or Schedule says what becomes of volumes that nobody
	// names: "opt-in" or "opt-out". It counts for more than the same setting in the plugins' ConfigMap,
	// as do the ones below.
	AnnotationDefaultVolumes = "estiba.dev/default-volumes"
	// AnnotationUnprotected on a Velero Backup or Schedule says how loud a volume without any
	// protection is: "warn" or "fail".
	AnnotationUnprotected = "estiba.dev/unprotected"
	// AnnotationOnMissingSnapshot on a Velero Restore says what is done about a volume that has
	// no snapshot: "fail", "empty" or "previous".
	AnnotationOnMissingSnapshot = "estiba.dev/on-missing-snapshot"
	// AnnotationExistingData on a Velero Restore says what is done about data that is found in
	// a volume: "refuse", "overwrite", "mirror" or "keep".
	AnnotationExistingData = "estiba.dev/existing-data"
	// AnnotationOnFileError on a Velero Restore says what is done about a file that can't be
	// restored: "fail" or "skip".
	AnnotationOnFileError = "estiba.dev/on-file-error"
	// LabelPluginConfig, with any value, marks the one ConfigMap in Velero's namespace that holds the
	// plugins' settings.
	LabelPluginConfig = "estiba.dev/plugin-config"
	// PolicyParameterMover is the parameter of the volume policy action "custom" that names who moves the volume.
	PolicyParameterMover = "mover"
	// PolicyMoverEstiba is the value of PolicyParameterMover that asks for Estiba.
	PolicyMoverEstiba = "estiba"
)

// Annotations and labels that Estiba sets.
const (
	// AnnotationVolumes on a Pod in the tarball holds a PodRecord.
	AnnotationVolumes = "estiba.dev/volumes"
	// AnnotationVolume on a PersistentVolumeClaim or PersistentVolume in the tarball holds a ClaimRecord.
	AnnotationVolume = "estiba.dev/volume"
	// AnnotationVolumeUnprotected on a PersistentVolumeClaim in the tarball holds an UnprotectedRecord. It is no
	// part of a ClaimRecord, which releases before can't read without a snapshot in it.
	AnnotationVolumeUnprotected = "estiba.dev/volume-unprotected"
	// AnnotationRestore on a restored Pod holds a GateRecord.
	AnnotationRestore = "estiba.dev/restore"
	// AnnotationHeld on a restored Pod says why it is held back by SchedulingGate.
	AnnotationHeld = "estiba.dev/restore-held"
	// AnnotationLookAgain on a Repository asks the controller to look at it now; its
	// value is when that was asked for, in RFC 3339.
	AnnotationLookAgain = "estiba.dev/look-again"
	// LabelUnfilled on a PersistentVolumeClaim says that its volume doesn't hold the data that a
	// restore was to bring. Its value is the name of the VolumeRestore that fills it. The label outlives
	// that, and the Restore: nothing but filled data, or a person, takes it away.
	LabelUnfilled = "estiba.dev/unfilled"
	// LabelStaging on a staging pod names the job that its volume is moved for.
	LabelStaging = "estiba.dev/staging"
	// LabelInstall on a staging pod is Velero's namespace of the install that made it: a cluster may hold more than one.
	LabelInstall = "estiba.dev/velero-namespace"
	// LabelNode on a job names the node whose daemon is to do it.
	LabelNode = "estiba.dev/node"
	// LabelHeartbeat on a Lease marks it as the heartbeat of a node's daemon; its value is HeartbeatNode.
	LabelHeartbeat = "estiba.dev/heartbeat"
	// HeartbeatNode is the value of LabelHeartbeat on the Lease of a node's daemon.
	HeartbeatNode = "node"
	// LabelComponent on Estiba's own DaemonSet, Deployment and pods tells which part they are.
	LabelComponent = "app.kubernetes.io/component"
	// ComponentNode is the value of LabelComponent on the DaemonSet and its pods.
	ComponentNode = "estiba-node"
	// ComponentStaging is the value of LabelComponent on staging pods.
	ComponentStaging = "estiba-staging"
	// ComponentController is the value of LabelComponent on the controller's Deployment and its pods.
	ComponentController = "estiba-controller"
	// LabelBackupName and the ones below are Velero's own labels, set on jobs for the people who know them.
	LabelBackupName = "velero.io/backup-name"
	// LabelBackupUID is the UID of the Velero Backup that a job belongs to.
	LabelBackupUID = "velero.io/backup-uid"
	// LabelRestoreName is the name of the Velero Restore that a job belongs to.
	LabelRestoreName = "velero.io/restore-name"
	// LabelRestoreUID is the UID of the Velero Restore that a job belongs to.
	LabelRestoreUID = "velero.io/restore-uid"
	// LabelClaimUID is the UID of the PersistentVolumeClaim that a job moves.
	LabelClaimUID = "velero.io/pvc-uid"
	// LabelExcludeFromBackup, if "true", keeps an object out of every Velero backup.
	LabelExcludeFromBackup = "velero.io/exclude-from-backup"
)

// MasterKeySecret is the name of the Secret that holds the master key, in Velero's namespace.
const MasterKeySecret = "estiba-master-key"

// MasterKeySecretKey is the key of MasterKeySecret's data under which the master key lies.
const MasterKeySecretKey = "key"

// MasterKeySecretPrevious is the key under which the master key before it lies, while
// repositories are brought from that to the current one.
const MasterKeySecretPrevious = "previous"
