package contract

import "strings"

// What a staging pod is made of: a pod that mounts one claim and does nothing.
const (
	// StagingContainer is the name of its only container of ours.
	StagingContainer = "estiba-staging"
	// StagingVolume is the name of its only volume of ours.
	StagingVolume = "volume"
	// StagingMountPath is where the container mounts the volume.
	StagingMountPath = "/volume"
	// StagingHold is the argument by which GateCommand does nothing until it is told to stop.
	StagingHold = "--hold"
)

const (
	stagingPrefix = "estiba-stage-"
	// stagingNameLength keeps the names short. It leaves 116 bits of a job's name, which others can't foresee.
	stagingNameLength = 32
)

// StagingPodName returns the name of a job's staging pod, in the namespace of the job's volume.
func StagingPodName(job string) string {
	return stagingPrefix + strings.TrimRight(job[:min(len(job), stagingNameLength)], "-.")
}
