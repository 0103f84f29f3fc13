package state

// The reasons below are one and the same word in a job's status, its
// conditions, events, logs and metrics. Where a worker failed, the reason is the
// code of its failure instead; see the codes of package engine.
const (
	// ReasonAccepted: the daemon of the node has taken the job on.
	ReasonAccepted = "Accepted"
	// ReasonQueued: the job waits for a free slot on its node.
	ReasonQueued = "Queued"
	// ReasonVolumeBusy: the job waits for another one that uploads the same volume.
	ReasonVolumeBusy = "VolumeBusy"
	// ReasonRunning: the worker runs.
	ReasonRunning = "Running"
	// ReasonResumed: the daemon was started anew and starts the worker again.
	ReasonResumed = "Resumed"
	// ReasonCompleted: all that was asked is done and was read back.
	ReasonCompleted = "Completed"
	// ReasonLeftEmpty: there was no snapshot to restore, and nothing was written, as was asked for that case.
	ReasonLeftEmpty = "LeftEmpty"
	// ReasonDataKept: the volume held data, and nothing was restored, as was asked for that case.
	ReasonDataKept = "DataKept"
	// ReasonPartlyRestored: some files could not be restored, and were left out, as was asked for that case.
	ReasonPartlyRestored = "PartlyRestored"
	// ReasonPreviousRestored: there was no snapshot to restore, and an older one was, as was asked for that case.
	ReasonPreviousRestored = "PreviousRestored"
	// ReasonCancelRequested: somebody set spec.cancel.
	ReasonCancelRequested = "CancelRequested"
	// ReasonOperationTimedOut: Velero's bound for the operation has passed, and it asked for the job's end.
	ReasonOperationTimedOut = "OperationTimedOut"
	// ReasonCancelTimedOut: the worker did not stop in time after it was told to, and was ended by force.
	ReasonCancelTimedOut = "CancelTimedOut"
	// ReasonDeadlineExceeded: the job's own deadline has passed.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonFreezeExceeded: the application was quiesced for as long as it may be, and the job was not done.
	ReasonFreezeExceeded = "FreezeExceeded"
	// ReasonAttemptsExhausted: the worker was started as often as it may be, and never ended with a result.
	ReasonAttemptsExhausted = "AttemptsExhausted"
	// ReasonBackupNotDone: the job that takes the snapshot which is to be forgotten has not ended.
	ReasonBackupNotDone = "BackupNotDone"
	// ReasonInternal: a fault of ours; also what a worker's code becomes that nobody knows.
	ReasonInternal = "InternalError"
	// ReasonOmissions: the job is done, and there is something that it could not keep.
	ReasonOmissions = "Omissions"
	// ReasonNothingOmitted: there is nothing that anybody could miss.
	ReasonNothingOmitted = "NothingOmitted"
	// ReasonDraining: the daemon is being stopped; the job goes on when it is back.
	ReasonDraining = "Draining"
)

// Reasons about the Velero object on whose behalf a job runs.
const (
	// ReasonOwnerGone: there is no Backup or Restore of that name and UID.
	ReasonOwnerGone = "OwnerGone"
	// ReasonOwnerFailed: the Backup or Restore has ended without the job.
	ReasonOwnerFailed = "OwnerFailed"
	// ReasonOwnerNotRunning: the Backup is in a phase in which it asks for no volumes.
	ReasonOwnerNotRunning = "OwnerNotRunning"
	// ReasonOperationLost: Velero has ended the Backup without waiting for the job, which goes on to its end.
	ReasonOperationLost = "OperationLost"
	// ReasonVolumeMissing: Velero has ended the Backup without waiting for the job, and the volume is not in it.
	ReasonVolumeMissing = "VolumeMissing"
)

// Reasons about the pod and the volume.
const (
	// ReasonPodNotFound: there is no such pod.
	ReasonPodNotFound = "PodNotFound"
	// ReasonPodReplaced: there is a pod of that name, but it is another one.
	ReasonPodReplaced = "PodReplaced"
	// ReasonPodMoved: the pod is on another node than the job was routed to.
	ReasonPodMoved = "PodMoved"
	// ReasonPodDeleted: the pod is being deleted; its volumes must not be held open.
	ReasonPodDeleted = "PodDeleted"
	// ReasonPodLost: the pod through which a claim was read is gone or going, and the work goes on through another one.
	ReasonPodLost = "PodLost"
	// ReasonPodNotRunning: the pod's containers have ended, so that its volumes are no longer mounted.
	ReasonPodNotRunning = "PodNotRunning"
	// ReasonPodUnscheduled: the pod waits for a node.
	ReasonPodUnscheduled = "PodUnscheduled"
	// ReasonPodRejected: the node refused to run the pod.
	ReasonPodRejected = "PodRejected"
	// ReasonVolumeNotFound: the pod has no volume of that name.
	ReasonVolumeNotFound = "VolumeNotFound"
	// ReasonVolumeMismatch: the pod's volume, its claim or its PersistentVolume is not the one that the job names.
	ReasonVolumeMismatch = "VolumeMismatch"
	// ReasonVolumeUnsupported: the volume can't be moved as files, such as a raw block device, or not through a staging
	// pod, such as a folder that is another one on each node.
	ReasonVolumeUnsupported = "VolumeUnsupported"
	// ReasonVolumeNotMounted: the volume's folder is there, but the volume is not mounted on it yet.
	ReasonVolumeNotMounted = "VolumeNotMounted"
	// ReasonVolumeUnlabelled: the labels and the reclaim policy of the original could not be put on the new volume.
	ReasonVolumeUnlabelled = "VolumeUnlabelled"
	// ReasonRepositoryMismatch: the repository that the job names is not the one of its location and namespace.
	ReasonRepositoryMismatch = "RepositoryMismatch"
	// ReasonLocationNotFound: there is no BackupStorageLocation of that name.
	ReasonLocationNotFound = "LocationNotFound"
)

// Reasons about the restore gate.
const (
	// ReasonWaitingForPods: the restore waits until a pod that mounts the volume exists.
	ReasonWaitingForPods = "WaitingForPods"
	// ReasonWaitingForPodEnd: a pod that mounts the volume is being deleted, and the restore waits until it is gone.
	ReasonWaitingForPodEnd = "WaitingForPodEnd"
	// ReasonGateNotReached: the pod is scheduled, but its gate does not run.
	ReasonGateNotReached = "GateNotReached"
	// ReasonGateImagePull: the image of the gate can't be pulled.
	ReasonGateImagePull = "GateImagePull"
	// ReasonGatePassed: the pod has left its gate before the data was there.
	ReasonGatePassed = "GatePassed"
	// ReasonUngatedPod: a pod mounts the volume without a gate of this restore.
	ReasonUngatedPod = "UngatedPod"
	// ReasonRouted: a pod stands at its gate, no other is without one, and the restore was given to a node.
	ReasonRouted = "Routed"
	// ReasonJobMissing: a VolumeRestore that a gate waits for does not exist.
	ReasonJobMissing = "JobMissing"
)

// ReasonRestoreNotDone says that the volume doesn't hold what a restore was to bring, or the pod waits for that.
const ReasonRestoreNotDone = "RestoreNotDone"

// Reasons about staging pods and the claims behind them.
const (
	// ReasonStaging: no running pod mounts the claim, and a staging pod is being made.
	ReasonStaging = "Staging"
	// ReasonStagingRefused: the API server refuses the staging pod.
	ReasonStagingRefused = "StagingRefused"
	// ReasonStagingCrowded: as many staging pods as may be are there for other jobs.
	ReasonStagingCrowded = "StagingCrowded"
	// ReasonStagingUnscheduled: the staging pod waits for a node.
	ReasonStagingUnscheduled = "StagingUnscheduled"
	// ReasonStagingImagePull: the image of the staging pod can't be pulled.
	ReasonStagingImagePull = "StagingImagePull"
	// ReasonStagingNotStarted: the staging pod has a node, but doesn't run.
	ReasonStagingNotStarted = "StagingNotStarted"
	// ReasonStagingEnded: the staging pod ended before the volume was moved.
	ReasonStagingEnded = "StagingEnded"
	// ReasonStagingLost: somebody took the staging pod away before the volume was moved; another one is made.
	ReasonStagingLost = "StagingLost"
	// ReasonStagingNameTaken: there is a pod of the staging pod's name that isn't one.
	ReasonStagingNameTaken = "StagingNameTaken"
	// ReasonClaimWanted: a pod wants the claim, and the staging pod makes way for it.
	ReasonClaimWanted = "ClaimWanted"
	// ReasonClaimHeld: somebody else holds the claim, which only one node, or one pod, may mount at a time.
	ReasonClaimHeld = "ClaimHeld"
	// ReasonClaimUnmarked: the claim that a restore fills could not be marked as one that isn't filled yet.
	ReasonClaimUnmarked = "ClaimUnmarked"
	// ReasonStandInStays: the owner that stood in for a pod's controller could not be taken off.
	ReasonStandInStays = "StandInStays"
	// ReasonClaimNotFound: there is no such claim.
	ReasonClaimNotFound = "ClaimNotFound"
	// ReasonClaimPending: the claim is bound to no volume, so that there is nothing to back up, or gets none to restore into.
	ReasonClaimPending = "ClaimPending"
	// ReasonClaimLost: the claim has lost its volume.
	ReasonClaimLost = "ClaimLost"
)

// Reasons about nodes.
const (
	// ReasonAPIUnavailable: the API server did not answer.
	ReasonAPIUnavailable = "APIUnavailable"
	// ReasonNodeLost: the node's daemon has not been heard of for longer than the bound.
	ReasonNodeLost = "NodeLost"
	// ReasonNoDaemonOnNode: no daemon of Estiba has ever been heard of on the node.
	ReasonNoDaemonOnNode = "NoDaemonOnNode"
	// ReasonNotRouted: the job names no node.
	ReasonNotRouted = "NotRouted"
)

// Reasons about repositories and the master key.
const (
	// ReasonRepositoryReady: the repository was found, or made, with this install's key.
	ReasonRepositoryReady = "RepositoryReady"
	// ReasonRepositoryCreating: the repository is being made.
	ReasonRepositoryCreating = "RepositoryCreating"
	// ReasonMasterKeyMissing: the location holds repositories, and there is no master key to open them with.
	ReasonMasterKeyMissing = "MasterKeyMissing"
	// ReasonMasterKeyInvalid: the master key's Secret can't be read as a key.
	ReasonMasterKeyInvalid = "MasterKeyInvalid"
	// ReasonWrongKey: the location holds repositories that were made with another master key.
	ReasonWrongKey = "WrongKey"
	// ReasonLocationReadOnly: the BackupStorageLocation may not be written to, and holds no repository yet.
	ReasonLocationReadOnly = "LocationReadOnly"
	// ReasonKeyCurrent: the repository is opened by the current master key alone.
	ReasonKeyCurrent = "KeyCurrent"
	// ReasonKeyRotationWaits: the repository is opened by the previous master key still, and waits for its jobs to end or for other repositories.
	ReasonKeyRotationWaits = "KeyRotationWaits"
	// ReasonKeyRotating: a worker brings the repository from the previous master key to the current one.
	ReasonKeyRotating = "KeyRotating"
	// ReasonKeyRotated: the repository was rotated to the current master key.
	ReasonKeyRotated = "KeyRotated"
	// ReasonKeyRotationFailed: the repository could not be rotated to the current master key, and stays under the previous one.
	ReasonKeyRotationFailed = "KeyRotationFailed"
	// ReasonStoreError: the object store could not be listed, read or written.
	ReasonStoreError = "StoreError"
)
