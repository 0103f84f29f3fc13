package volumeselect

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Settings are what a backup says about all of its volumes.
type Settings struct {
	// Policies of the backup; nil where it has none.
	Policies *Policies
	// CoreTakesAll says that Velero's own file-system backup takes every volume
	// that is not excluded from it (the Backup's spec.defaultVolumesToFsBackup).
	CoreTakesAll bool
	// NativeSnapshots says that Velero takes snapshots of the volumes for which
	// it has a snapshotter (spec.snapshotVolumes, and a location for them).
	NativeSnapshots bool
	// Backup is the name of the Backup, by which a claim tells of a CSI snapshot for it.
	Backup string
}

// Pod decides on one volume of a pod that no claim stands behind.
func Pod(pod *corev1.Pod, volume *corev1.Volume, settings Settings) Verdict {
	s := choose(pod, volume.Name, settings.Policies.Match(TraitsOf(nil, nil, volume)), settings.CoreTakesAll)

	return s.verdict(volume.Name, obstacle(pod, volume, s))
}

// Claim is a PersistentVolumeClaim with all that is needed to decide on it.
type Claim struct {
	// Claim to decide on.
	Claim *corev1.PersistentVolumeClaim
	// Volume that it is bound to; nil where it isn't.
	Volume *corev1.PersistentVolume
	// Pods of the claim's namespace.
	Pods []corev1.Pod
}

// Carrier is the pod through which a claim's volume is read.
type Carrier struct {
	// Pod that mounts the claim; nil where the volume isn't moved.
	Pod *corev1.Pod
	// Volume is the volume's name in that pod.
	Volume string
}

// OfClaim decides on the volume behind a claim: it is selected if the policy or
// any pod that mounts it asks for it, and it is read through the first running
// pod, by name, that can carry it. Whoever asks gets the same answer.
func OfClaim(c Claim, settings Settings) (Verdict, Carrier) {
	action := settings.Policies.Match(TraitsOf(c.Volume, c.Claim, nil))
	mounts := mountsOf(c)
	s := chooseClaim(mounts, action, settings.CoreTakesAll)

	if !s.selected {
		return s.verdict(c.Claim.Name, nil), Carrier{}
	}

	if s.caution == "" && action == nil {
		s.caution = alsoSnapshot(c, settings)
	}

	if o := placesObstacle(mounts, s.loud); o != nil {
		return s.verdict(c.Claim.Name, o), Carrier{}
	}

	if o := claimObstacle(c, s.loud); o != nil {
		return s.verdict(c.Claim.Name, o), Carrier{}
	}

	var first *obstruction

	for _, m := range mounts {
		o := obstacle(m.Pod, m.volume(), s)
		if o == nil {
			return s.verdict(c.Claim.Name, nil), m
		}

		if first == nil {
			first = o
		}
	}

	if first == nil {
		first = &obstruction{reason: ReasonNotMounted, level: s.loud, why: "no pod mounts it, and only a volume that a running pod mounts can be read"}
	}

	return s.verdict(c.Claim.Name, first), Carrier{}
}

// chooseClaim gives the strongest selection that any mount gives the claim.
// Where no pod mounts it, the policy alone counts.
func chooseClaim(mounts []Carrier, action *Action, coreDefault bool) selection {
	best := choose(&corev1.Pod{}, "", action, coreDefault && len(mounts) > 0)

	for i, m := range mounts {
		s := choose(m.Pod, m.Volume, action, coreDefault)
		if i == 0 || s.selected && (!best.selected || s.loud > best.loud) {
			best = s
		}
	}

	return best
}

func mountsOf(c Claim) []Carrier {
	var list []Carrier

	for i := range c.Pods {
		pod := &c.Pods[i]
		if pod.Namespace != c.Claim.Namespace {
			continue
		}

		for _, v := range pod.Spec.Volumes {
			if ClaimName(&v) == c.Claim.Name || ephemeralClaim(pod, &v, c.Claim) {
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
	v := Verdict{Volume: volume, Move: s.selected, Reason: s.reason, Message: s.by, Explicit: s.selected, Caution: s.caution}

	if s.selected && o != nil {
		v.Move = false
		v.Reason = o.reason
		v.Message = fmt.Sprintf("%s, but it can't be moved: %s", s.by, o.why)
		v.Level = o.level
		v.Caution = ""
	}

	return v
}
