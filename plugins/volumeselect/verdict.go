package volumeselect

// Reason says in one word why a volume is moved or not.
type Reason string

// The reasons for a volume to be moved.
const (
	// ReasonAnnotation says that an annotation of a pod names the volume.
	ReasonAnnotation Reason = "Annotation"
	// ReasonClaimAnnotation says that an annotation of the claim asks for it.
	ReasonClaimAnnotation Reason = "ClaimAnnotation"
	// ReasonPolicy says that the backup's volume policy names Estiba as the mover.
	ReasonPolicy Reason = "VolumePolicy"
	// ReasonDefault says that every volume is moved that isn't excluded or somebody else's.
	ReasonDefault Reason = "Default"
)

// The reasons for a volume to be left alone because somebody wants it so.
const (
	// ReasonExcluded says that an annotation or a volume policy excludes the volume.
	ReasonExcluded Reason = "Excluded"
	// ReasonLeftToFSB says that Velero's own file-system backup takes the volume.
	ReasonLeftToFSB Reason = "LeftToFileSystemBackup"
	// ReasonLeftToSnapshot says that Velero takes a snapshot of the volume.
	ReasonLeftToSnapshot Reason = "LeftToSnapshot"
	// ReasonLeftToOther says that a volume policy gives the volume to another plugin.
	ReasonLeftToOther Reason = "LeftToOtherPlugin"
)

// The reasons for a volume to stay where it is.
const (
	// ReasonNotSelected says that nothing asks Estiba to move the volume.
	ReasonNotSelected Reason = "NotSelected"
	// ReasonNoSuchVolume says that an annotation names a volume that the pod doesn't have.
	ReasonNoSuchVolume Reason = "NoSuchVolume"
	// ReasonBadPattern says that an annotation holds a pattern that can't be read.
	ReasonBadPattern Reason = "BadPattern"
	// ReasonBadValue says that an annotation holds a value that can't be read.
	ReasonBadValue Reason = "BadValue"
	// ReasonSystemPod says that the pod is the cluster's or Velero's own, and that the volume dies with it.
	ReasonSystemPod Reason = "SystemPod"
	// ReasonRestoring says that a restore has not filled the volume yet.
	ReasonRestoring Reason = "RestoreNotDone"
	// ReasonWindows says that the pod runs on Windows.
	ReasonWindows Reason = "WindowsPod"
	// ReasonStaticPod says that the pod is the mirror of a file on its node.
	ReasonStaticPod Reason = "StaticPod"
	// ReasonNoData says that the volume is of a kind that Kubernetes fills itself.
	ReasonNoData Reason = "NoDataOfItsOwn"
	// ReasonCredentials says that the volume is filled with credentials by a CSI driver.
	ReasonCredentials Reason = "HoldsCredentials"
	// ReasonHostPath says that the volume is a folder of the node.
	ReasonHostPath Reason = "HostPath"
	// ReasonUnsupported says that volumes of this kind can't be moved.
	ReasonUnsupported Reason = "UnsupportedVolume"
	// ReasonBlock says that the volume is a raw block device.
	ReasonBlock Reason = "BlockVolume"
	// ReasonUnbound says that the claim isn't bound to a volume.
	ReasonUnbound Reason = "ClaimNotBound"
	// ReasonLost says that the claim has lost its volume.
	ReasonLost Reason = "ClaimLost"
	// ReasonNotMounted says that no container mounts the volume.
	ReasonNotMounted Reason = "NotMounted"
	// ReasonNotRunning says that the pod doesn't run.
	ReasonNotRunning Reason = "PodNotRunning"
	// ReasonNoNode says that the pod isn't on a node.
	ReasonNoNode Reason = "PodNotScheduled"
)

// Level says how loud a verdict is in the backup's log.
type Level int

// The levels, by rising loudness.
const (
	// Info is for verdicts that were to be expected.
	Info Level = iota
	// Warning is for verdicts that somebody may not have expected; Velero counts it in the backup's warnings.
	Warning
	// Error is for data that somebody asked for and that isn't protected; it
	// makes Velero's backup partially failed.
	Error
)

// Verdict is the decision on one volume.
type Verdict struct {
	// Volume is the volume's name in the pod, or the claim's name.
	Volume string
	// Move says that Estiba moves the volume.
	Move bool
	// Reason for the decision.
	Reason Reason
	// Message for people: what was looked at, and what to do where something is in the way.
	Message string
	// Selected says that Estiba was to move the volume, by name, by policy or by default.
	Selected bool
	// Level of the verdict.
	Level Level
	// Loud is the level where a volume that is to be moved can't be after all, by the way in which the cluster is set up.
	Loud Level
	// Caution is a warning beside the verdict, such as that somebody else
	// moves the volume too; empty where there is none.
	Caution string
}

// Lost reports whether the volume's data was to be in the backup, and is not going to be.
func (v Verdict) Lost() bool { return v.Selected && !v.Move && !v.needless() }

func (v Verdict) needless() bool {
	switch v.Reason {
	case ReasonNoData, ReasonCredentials:
		return true
	default:
		return v.Level == Info
	}
}

// Fate says in a word or two what becomes of the volume.
func (v Verdict) Fate() string {
	switch {
	case v.Move:
		return "to be moved"
	case v.Reason == ReasonLeftToFSB:
		return "left to Velero's file-system backup"
	case v.Reason == ReasonLeftToSnapshot:
		return "left to a snapshot"
	case v.Reason == ReasonLeftToOther:
		return "left to another plugin"
	case v.Reason == ReasonExcluded:
		return "excluded"
	case v.Reason == ReasonBadValue, v.Reason == ReasonBadPattern, v.Reason == ReasonNoSuchVolume:
		return "bad annotation"
	case v.needless():
		return "not moved"
	default:
		return "unprotected"
	}
}
