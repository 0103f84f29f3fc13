package volumeselect

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
)

// rank orders what is said about one volume: the higher counts for more.
type rank int

const (
	rankDefault rank = iota
	// rankYield is for what keeps a mere default off.
	rankYield
	// rankTaken is for somebody else who takes the volume.
	rankTaken
	rankExcluded
	rankNamed
)

// selection says whether a volume is to be moved, and how it comes to that.
type selection struct {
	rank     rank
	selected bool
	reason   Reason
	// by says in words who asks, or what stands against it.
	by string
	// loud is how loud to say that the volume can't be moved although it is
	// selected, or that it isn't selected.
	loud Level
	// caution is a warning beside it.
	caution string
}

// choose says what the annotations of the pod, the policy and the defaults want
// to become of one of its volumes. Persistent is data that outlives the pod.
func (s *Settings) choose(pod *corev1.Pod, volume *corev1.Volume, action *Action, persistent bool) selection {
	if named := s.named(pod, volume, action); named.rank > rankDefault {
		return named
	}

	if others := s.others(pod, volume, action); others.rank > rankDefault {
		return others
	}

	return s.byDefault(pod, action, persistent)
}

// named says what is wanted by those who name the volume and Estiba.
func (s *Settings) named(pod *corev1.Pod, volume *corev1.Volume, action *Action) selection {
	named := matches(patterns(pod.Annotations[contract.AnnotationBackupVolumes]), volume.Name)
	excluded := matches(patterns(pod.Annotations[contract.AnnotationBackupVolumesExcludes]), volume.Name)

	var sel selection

	switch {
	case excluded != matchNone:
		sel = selection{rank: rankExcluded, reason: ReasonExcluded, by: fmt.Sprintf("annotation %s of pod %s excludes it", contract.AnnotationBackupVolumesExcludes, pod.Name)}
		if named == matchName || action.Estiba() {
			sel.caution = "something asks for the volume, too, but what excludes it counts for more"
		}

		return sel
	case named != matchNone:
		sel = selection{rank: rankNamed, selected: true, reason: ReasonAnnotation, by: fmt.Sprintf("annotation %s of pod %s names it", contract.AnnotationBackupVolumes, pod.Name), loud: s.unprotected()}
		if named == matchName {
			sel.loud = Error
		}
	case action.Estiba():
		sel = selection{rank: rankNamed, selected: true, reason: ReasonPolicy, by: "the backup's volume policy names Estiba", loud: Error}
	default:
		return selection{}
	}

	sel.caution = s.alsoTaken(pod, volume, action)

	return sel
}

// byDefault says what becomes of a volume that nobody names.
func (s *Settings) byDefault(pod *corev1.Pod, action *Action, persistent bool) selection {
	sel := selection{reason: ReasonNotSelected, by: fmt.Sprintf("no annotation and no volume policy asks for it; name it in %s of its pod", contract.AnnotationBackupVolumes)}

	switch {
	case s.Own.DefaultVolumes == settings.OptOut && !persistent && s.system(pod):
		return selection{reason: ReasonSystemPod, by: fmt.Sprintf("what lives and dies with a pod of namespace %s is moved only if it is named", pod.Namespace)}
	case s.Own.DefaultVolumes == settings.OptOut:
		sel = selection{selected: true, reason: ReasonDefault, by: "everything is moved that nothing excludes (default-volumes: opt-out)", loud: s.unprotected()}
	case pod.Annotations[contract.AnnotationBackupVolumes] != "":
		sel.by = fmt.Sprintf("annotation %s of pod %s doesn't name it, and no volume policy does", contract.AnnotationBackupVolumes, pod.Name)
	}

	if action != nil {
		sel.by += fmt.Sprintf("; the volume policy that matches it says %s, but Velero can't do that with it", action)
	}

	// What lives and dies with its pod is lost often anyway.
	if persistent {
		sel.loud = s.unprotected()
	}

	return sel
}

// system reports whether the pod is one of the cluster's own, or of Velero's. They
// keep nothing in what dies with them; and a gate would hold what others, or the
// restore itself, can't do without.
func (s *Settings) system(pod *corev1.Pod) bool {
	return pod.Namespace == metav1.NamespaceSystem || pod.Namespace != "" && pod.Namespace == s.VeleroNamespace
}

// unprotected returns the level that is set for volumes without protection.
func (s *Settings) unprotected() Level {
	if s.Own.Unprotected == settings.UnprotectedFail {
		return Error
	}

	return Warning
}

// Strays returns a verdict for each entry of the pod's annotations that stands
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
			Volume: pattern, Reason: ReasonNoSuchVolume, Level: Warning, Selected: true,
			Message: fmt.Sprintf("annotation %s names the volume %q, but pod %s has none of that name in spec.volumes", key, pattern, pod.Name),
		}, true
	}
}

// ClaimStrays returns a verdict for the claim's annotation if that can't be read.
func ClaimStrays(claim *corev1.PersistentVolumeClaim) []Verdict {
	if wishOf(claim) != wishUnread {
		return nil
	}

	return []Verdict{{Volume: claim.Name, Reason: ReasonBadValue, Level: Error, Message: fmt.Sprintf(
		`annotation %s of claim %s is %q, and only "true" and "false" are allowed; it counts for nothing`,
		contract.AnnotationBackup, claim.Name, claim.Annotations[contract.AnnotationBackup])}}
}

// wish is what the annotation of a claim says.
type wish int

const (
	wishNone wish = iota
	wishMove
	wishExclude
	wishUnread
)

func wishOf(claim *corev1.PersistentVolumeClaim) wish {
	value, ok := claim.Annotations[contract.AnnotationBackup]
	if !ok {
		return wishNone
	}

	switch strings.ToLower(strings.TrimSpace(value)) {
	case "true":
		return wishMove
	case "false":
		return wishExclude
	default:
		return wishUnread
	}
}
