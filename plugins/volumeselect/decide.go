package volumeselect

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
)

// Settings are what counts for all volumes of a backup.
type Settings struct {
	// Own are Estiba's own settings, as they are for the backup.
	Own settings.Settings
	// Policies of the backup; nil where it has none.
	Policies *Policies
	// CoreTakesAll says that Velero's own file-system backup takes every volume
	// that is not excluded from it (the Backup's spec.defaultVolumesToFsBackup).
	CoreTakesAll bool
	// CoreLeavesClaims says that it takes no volumes of claims (spec.snapshotMoveData).
	CoreLeavesClaims bool
	// CoreNodes are the nodes that its agent runs on; nil where that isn't known.
	CoreNodes map[string]bool
	// Snapshotters are the providers of the locations to which Velero takes
	// snapshots; none where the backup has them off (spec.snapshotVolumes).
	Snapshotters []string
	// VeleroNamespace is where Velero and Estiba run.
	VeleroNamespace string
}

// Pod decides on one volume of a pod that no claim stands behind.
func Pod(pod *corev1.Pod, volume *corev1.Volume, s Settings) Verdict {
	sel := s.choose(pod, volume, s.Policies.Match(TraitsOf(nil, nil, volume)), volume.NFS != nil)

	// What nobody takes anyway needs no word on who asks.
	if o := s.neverTaken(volume, sel); o != nil {
		return sel.verdict(volume.Name, o)
	}

	return sel.verdict(volume.Name, s.obstacle(pod, volume, sel))
}

// Claim is a PersistentVolumeClaim with all that is needed to decide on it.
type Claim struct {
	// Claim to decide on.
	Claim *corev1.PersistentVolumeClaim
	// Volume that it is bound to; nil where it isn't.
	Volume *corev1.PersistentVolume
	// Pods of the claim's namespace.
	Pods []corev1.Pod
	// Unfilled says why it doesn't hold the data that a restore was to bring; empty where it does.
	Unfilled string
	// Snapshotted says that Velero has taken a CSI snapshot of it for this backup.
	Snapshotted bool
}

// Carrier is the pod through which a claim's volume is read.
type Carrier struct {
	// Pod that mounts the claim; nil where the volume isn't moved, or is through a staging pod.
	Pod *corev1.Pod
	// Volume is the volume's name in that pod.
	Volume string
}

// OfClaim decides on the volume behind a claim: it is selected if its own
// annotation, the policy or any pod that mounts it asks for it, and it is read
// through the first running pod, by name, that can carry it. Whoever asks gets
// the same answer.
func OfClaim(c Claim, s Settings) (Verdict, Carrier) {
	mounts := mountsOf(c)
	sel := s.chooseClaim(c, mounts)

	if !sel.selected {
		// A claim that has no volume yet has no data that could be missing.
		if sel.rank == rankDefault && c.Volume == nil && c.Claim.Status.Phase != corev1.ClaimLost {
			sel.loud = Info
		}

		return sel.verdict(c.Claim.Name, nil), Carrier{}
	}

	if o := placesObstacle(mounts, sel); o != nil {
		return sel.verdict(c.Claim.Name, o), Carrier{}
	}

	if o := s.claimObstacle(c, sel); o != nil {
		return sel.verdict(c.Claim.Name, o), Carrier{}
	}

	var first *obstruction

	for _, m := range mounts {
		o := s.obstacle(m.Pod, m.volume(), sel)
		if o == nil {
			return sel.verdict(c.Claim.Name, nil), m
		}

		// One that a staging pod can't get round counts for more.
		if first == nil || passing(first) {
			first = o
		}
	}

	if stageable(c, first) {
		return staged(sel.verdict(c.Claim.Name, nil)), Carrier{}
	}

	if first == nil {
		first = &obstruction{reason: ReasonNotMounted, level: sel.loud, why: "no pod mounts it, and only a volume that a running pod mounts can be read"}
	}

	return sel.verdict(c.Claim.Name, first), Carrier{}
}

// chooseClaim returns what counts for most of all that is said about the claim,
// by itself, by the policy and by the pods that mount it.
func (s *Settings) chooseClaim(c Claim, mounts []Carrier) selection {
	s = s.forVolume(c.Volume)
	action := s.unfulfilled(c, s.Policies.Match(TraitsOf(c.Volume, c.Claim, nil)))
	persistent := !OwnedByPod(c.Claim)
	best := selection{rank: -1}

	if len(mounts) == 0 {
		best = s.choose(&corev1.Pod{}, &corev1.Volume{}, action, persistent)
	}

	for _, m := range mounts {
		if sel := s.choose(m.Pod, m.volume(), action, persistent); sel.rank > best.rank || sel.rank == best.rank && sel.loud > best.loud {
			best = sel
		}
	}

	if best.rank < rankTaken && c.Claim.Labels[contract.LabelExcludeFromBackup] == "true" {
		best = selection{rank: rankYield, reason: ReasonExcluded, by: fmt.Sprintf("label %s of the claim excludes it", contract.LabelExcludeFromBackup)}
	}

	best = best.wished(wishOf(c.Claim))

	switch snapshot := s.snapshotOf(c, mounts); {
	case snapshot == "" || action != nil:
	case best.rank < rankTaken:
		best = selection{rank: rankTaken, reason: ReasonLeftToSnapshot, by: snapshot}
	case best.selected && best.caution == "":
		best.caution = snapshot + ", too: it is in the backup twice; give it to Estiba alone by a volume policy (custom, mover: estiba) or with --snapshot-volumes=false"
	}

	return best
}

// wished returns the selection as the annotation of the claim itself changes it.
func (s selection) wished(w wish) selection {
	const by = "annotation " + contract.AnnotationBackup + " of the claim"

	switch {
	case w == wishExclude:
		out := selection{rank: rankExcluded, reason: ReasonExcluded, by: by + " excludes it"}
		if s.rank == rankNamed {
			out.caution = "something asks for the volume, too (" + s.by + "), but what excludes it counts for more"
		}

		return out
	case w == wishMove && s.reason != ReasonPolicy:
		out := selection{rank: rankNamed, selected: true, reason: ReasonClaimAnnotation, by: by + " asks for it", loud: Error, caution: s.caution}

		if s.rank == rankExcluded {
			out.caution = s.by + ", but the annotation of the claim counts for more"
		}

		if s.rank == rankTaken {
			out.caution = "it is in the backup twice: " + s.by
		}

		return out
	default:
		return s
	}
}

func mountsOf(c Claim) []Carrier {
	var list []Carrier

	for i := range c.Pods {
		pod := &c.Pods[i]
		if pod.Namespace != c.Claim.Namespace {
			continue
		}

		for _, v := range pod.Spec.Volumes {
			if mounts(pod, &v, c.Claim) {
				list = append(list, Carrier{Pod: pod, Volume: v.Name})
			}
		}
	}

	slices.SortFunc(list, func(a, b Carrier) int {
		return cmp.Or(cmp.Compare(a.Pod.Name, b.Pod.Name), cmp.Compare(a.Volume, b.Volume))
	})

	return list
}

func (m Carrier) volume() *corev1.Volume {
	i := slices.IndexFunc(m.Pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Volume })

	return &m.Pod.Spec.Volumes[i]
}

// verdict joins what is asked for with what stands in the way.
func (s selection) verdict(volume string, o *obstruction) Verdict {
	v := Verdict{Volume: volume, Move: s.selected, Reason: s.reason, Message: s.by, Selected: s.selected, Loud: s.loud, Caution: s.caution}

	switch {
	case o != nil && o.never:
		v.Move, v.Reason, v.Level, v.Caution = false, o.reason, o.level, ""
		v.Message = o.why
	case o != nil && s.selected:
		v.Move, v.Reason, v.Level, v.Caution = false, o.reason, o.level, ""
		v.Message = fmt.Sprintf("%s, but it can't be moved: %s", s.by, o.why)
	case !s.selected:
		v.Level = s.loud
	}

	return v
}
