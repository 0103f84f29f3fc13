package volumeselect

// stageable reports whether all that keeps the volume from being read is that no
// running pod has it: the mover makes a staging pod then, which mounts the claim
// and does nothing. A claim that comes and goes with its pod is not worth one, and
// a hostPath is wherever its pod was.
func stageable(c Claim, first *obstruction) bool {
	return !OwnedByPod(c.Claim) && c.Volume.Spec.HostPath == nil && (first == nil || passing(first))
}

// passing reports whether it is the pod that stands in the way, and not the volume.
func passing(o *obstruction) bool {
	switch o.reason {
	case ReasonNotMounted, ReasonNotRunning, ReasonNoNode:
		return true
	default:
		return false
	}
}

// staged is the verdict on a volume that is moved through a staging pod.
func staged(v Verdict) Verdict {
	v.Message += "; no running pod mounts it, so it is moved through a staging pod"

	return v
}
