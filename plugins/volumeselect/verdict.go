package volumeselect

// Reason tells in one word why a volume is moved or not.
type Reason string

// The reasons for a volume to be moved.
const (
	// ReasonAnnotation says that an annotation of a pod names the volume.
	ReasonAnnotation Reason = "Annotation"
	// ReasonPolicy says that the backup's volume policy names Estiba as the mover.
	ReasonPolicy Reason = "VolumePolicy"
)

// The reasons for a volume to stay where it is.
const (
	// ReasonNotSelected says that nothing asks Estiba to move the volume.
	ReasonNotSelected Reason = "NotSelected"
	// ReasonExcluded says that an annotation of the pod excludes the volume.
	ReasonExcluded Reason = "Excluded"
	// ReasonNoSuchVolume says that an annotation names a volume that the pod doesn't have.
	ReasonNoSuchVolume Reason = "NoSuchVolume"
	// ReasonBadPattern says that an annotation holds a pattern that can't be read.
	ReasonBadPattern Reason = "BadPattern"
	// ReasonWindows says that the pod runs on Windows.
	ReasonWindows Reason = "WindowsPod"
	// ReasonStaticPod says that the pod is the mirror of a file on its node.
	ReasonStaticPod Reason = "StaticPod"
	// ReasonNoData says that the volume is of a kind that Kubernetes fills itself.
	ReasonNoData Reason = "NoDataOfItsOwn"
	// ReasonUnsupported says that volumes of this kind can't be moved.
	ReasonUnsupported Reason = "UnsupportedVolume"
	// ReasonBlock says that the volume is a raw block device.
	ReasonBlock Reason = "BlockVolume"
	// ReasonUnbound says that the claim isn't bound to a volume.
	ReasonUnbound Reason = "ClaimNotBound"
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
	// Explicit says that somebody named Estiba for this volume, by an annotation or a policy.
	Explicit bool
	// Level of the verdict.
	Level Level
	// Caution is a warning beside the verdict, such as that somebody else
	// moves the volume too; empty where there is none.
	Caution string
}

// Lost tells whether somebody asked for the volume's data, and it is not going to be in the backup.
func (v Verdict) Lost() bool { return v.Explicit && !v.Move && v.Reason != ReasonNoData }
