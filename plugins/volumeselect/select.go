package volumeselect

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/contract"
)

// Velero's own annotations that select volumes for its file-system backup
// (velero v1.18.3 pkg/apis/velero/v1/labels_annotations.go).
const (
	coreVolumes         = "backup.velero.io/backup-volumes"
	coreVolumesExcludes = "backup.velero.io/backup-volumes-excludes"
)

// selection says whether somebody asks for a volume to be moved, and how.
type selection struct {
	selected bool
	reason   Reason
	// by says in words who asks, or what stands against it.
	by string
	// loud is how loud to say that the volume can't be moved although it is selected.
	loud Level
	// caution is a warning beside it.
	caution string
}

// choose says whether the annotations of the pod or the policy ask for the volume.
func choose(pod *corev1.Pod, volume string, action *Action, coreDefault bool) selection {
	named := matches(patterns(pod.Annotations[contract.AnnotationBackupVolumes]), volume)
	excluded := matches(patterns(pod.Annotations[contract.AnnotationBackupVolumesExcludes]), volume)

	var s selection

	switch {
	case excluded != matchNone:
		s = selection{reason: ReasonExcluded, by: fmt.Sprintf("annotation %s of pod %s excludes it", contract.AnnotationBackupVolumesExcludes, pod.Name)}
		if named == matchName || action.Estiba() {
			s.loud = Warning
			s.caution = "something asks for the volume, too, but what excludes it counts for more"
		}

		return s
	case named != matchNone:
		s = selection{selected: true, reason: ReasonAnnotation, by: fmt.Sprintf("annotation %s of pod %s names it", contract.AnnotationBackupVolumes, pod.Name), loud: Warning}
		if named == matchName {
			s.loud = Error
		}
	case action.Estiba():
		s = selection{selected: true, reason: ReasonPolicy, by: "the backup's volume policy names Estiba", loud: Error}
	default:
		return selection{reason: ReasonNotSelected, by: notSelected(action)}
	}

	s.caution = alsoTaken(pod, volume, action, coreDefault)

	return s
}

func notSelected(action *Action) string {
	by := fmt.Sprintf("annotation %s doesn't name it", contract.AnnotationBackupVolumes)
	if action == nil {
		return by + ", and no volume policy matches it"
	}

	return fmt.Sprintf("%s, and the volume policy that matches it says %s, not %s with %s: %s",
		by, action, actionCustom, contract.PolicyParameterMover, contract.PolicyMoverEstiba)
}

// alsoTaken says who else moves a selected volume, or that the policy meant otherwise.
func alsoTaken(pod *corev1.Pod, volume string, action *Action, coreDefault bool) string {
	switch {
	case action.Estiba():
		return ""
	case action != nil && action.Type == actionFSBackup:
		return "the volume policy gives it to Velero's own file-system backup, too: it is moved twice"
	case action != nil && action.Type == actionSnapshot:
		return "the volume policy asks for a snapshot of it, too"
	case action != nil:
		return fmt.Sprintf("the volume policy says %s, but what names Estiba counts for more", action)
	case coreTakes(pod, volume, coreDefault):
		return "Velero's own file-system backup takes it, too: it is moved twice"
	default:
		return ""
	}
}

// coreTakes tells whether Velero's own file-system backup takes a volume that
// no policy matches. Its lists hold plain names, and spaces count.
func coreTakes(pod *corev1.Pod, volume string, coreDefault bool) bool {
	if coreDefault {
		return !slices.Contains(strings.Split(pod.Annotations[coreVolumesExcludes], ","), volume)
	}

	return slices.Contains(strings.Split(pod.Annotations[coreVolumes], ","), volume)
}

// Strays gives a verdict for each entry of the pod's annotations that stands
// for no volume: names that the pod doesn't have, and patterns that can't be read.
func Strays(pod *corev1.Pod) []Verdict {
	var list []Verdict

	for _, key := range []string{contract.AnnotationBackupVolumes, contract.AnnotationBackupVolumesExcludes} {
		for _, p := range patterns(pod.Annotations[key]) {
			if v, stray := strayVerdict(pod, key, p); stray {
				list = append(list, v)
			}
		}
	}

	return list
}

func strayVerdict(pod *corev1.Pod, key, pattern string) (Verdict, bool) {
	has := slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == pattern })

	switch {
	case has:
		return Verdict{}, false
	case badGlob(pattern):
		return Verdict{
			Volume: pattern, Reason: ReasonBadPattern, Level: Warning,
			Message: fmt.Sprintf("annotation %s of pod %s holds the pattern %q, which can't be read; it matches nothing", key, pod.Name, pattern),
		}, true
	case isGlob(pattern):
		return Verdict{}, false
	default:
		return Verdict{
			Volume: pattern, Reason: ReasonNoSuchVolume, Level: Warning, Explicit: true,
			Message: fmt.Sprintf("annotation %s names the volume %q, but pod %s has none of that name in spec.volumes", key, pattern, pod.Name),
		}, true
	}
}
