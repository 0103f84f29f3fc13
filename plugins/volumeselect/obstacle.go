package volumeselect

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/contract"
)

// obstruction is what keeps a volume from being moved.
type obstruction struct {
	reason Reason
	level  Level
	why    string
	// never says that the volume is taken by nobody, whoever asks for it.
	never bool
}

// secretDrivers are the CSI drivers whose inline volumes hold credentials. The
// names are the ones that the drivers register under.
func secretDrivers() []string {
	return []string{
		"secrets-store.csi.k8s.io",    // Secrets Store, for Vault, AWS, Azure and Google
		"csi.spiffe.io",               // SPIFFE workload API
		"spiffe.csi.cert-manager.io",  // SPIFFE documents by cert-manager
		"csi.cert-manager.io",         // certificates by cert-manager
		"secrets.stackable.tech",      // Stackable's secret operator
		"secrets.csi.infisical.com",   // Infisical
		"sharedresource.openshift.io", // OpenShift's shared secrets and config maps
		"csi.sharedresource.openshift.io",
		"vaultsecrets.csi.banzaicloud.com",
		"podcertificate.csi.cert-manager.io",
	}
}

// neverTaken looks for volumes that are not moved whoever asks for them: they
// hold nothing of their own, what must not be in a backup, or what is the node's.
func (s *Settings) neverTaken(volume *corev1.Volume, sel selection) *obstruction {
	kind := typeOf(&volume.VolumeSource)

	switch {
	case noData(kind):
		return &obstruction{reason: ReasonNoData, never: true, why: fmt.Sprintf("Kubernetes fills volumes of the kind %s itself", kind)}
	case volume.CSI != nil && slices.Contains(slices.Concat(secretDrivers(), s.Own.SecretCSIDrivers), volume.CSI.Driver):
		o := &obstruction{reason: ReasonCredentials, never: true, why: fmt.Sprintf("CSI driver %s fills it with credentials, which don't belong in a backup", volume.CSI.Driver)}
		if sel.reason == ReasonAnnotation {
			o.level = Warning
		}

		return o
	case volume.HostPath != nil && !s.allowsHostPath(volume.HostPath.Path):
		o := &obstruction{reason: ReasonHostPath, never: true, why: fmt.Sprintf("a hostPath (%s) is the node's, not the pod's, and the setting host-path-prefixes doesn't allow it", volume.HostPath.Path)}
		if sel.reason == ReasonAnnotation {
			o.level = s.unprotected()
		}

		return o
	default:
		return nil
	}
}

// allowsHostPath reports whether the folder lies in one of those that the administrator allows.
func (s *Settings) allowsHostPath(folder string) bool {
	folder = path.Clean(folder)

	return slices.ContainsFunc(s.Own.HostPathPrefixes, func(prefix string) bool {
		return folder == prefix || strings.HasPrefix(folder, prefix+"/")
	})
}

// obstacle looks for what keeps the volume from being read through the pod. It
// is as loud as the volume was asked for, unless there is no data to be lost.
func (s *Settings) obstacle(pod *corev1.Pod, volume *corev1.Volume, sel selection) *obstruction {
	// Before its kind: no volume of a Windows pod is ever worth an error.
	if o := placeObstacle(pod, sel); o != nil {
		return o
	}

	if KindOf(volume) == "" {
		return &obstruction{reason: ReasonUnsupported, level: sel.loud, why: fmt.Sprintf("volumes of the kind %s are mounted by the pod itself; put a PersistentVolumeClaim before it", typeOf(&volume.VolumeSource))}
	}

	u := useOf(&pod.Spec, volume.Name)

	switch {
	case u.block:
		return &obstruction{reason: ReasonBlock, level: sel.loud, why: fmt.Sprintf("pod %s uses it as a raw block device, which holds no files; take a CSI snapshot of it", pod.Name)}
	case !u.mounted:
		return &obstruction{reason: ReasonNotMounted, level: sel.quiet(), why: fmt.Sprintf("no container of pod %s mounts it, so it isn't on the node", pod.Name)}
	default:
		return runObstacle(pod, volume, sel)
	}
}

// quiet is how loud to say it where no data can be lost.
func (s selection) quiet() Level {
	if s.reason == ReasonDefault {
		return Info
	}

	return min(s.loud, Warning)
}

// placeObstacle looks for pods whose volumes are not where those of others are.
func placeObstacle(pod *corev1.Pod, sel selection) *obstruction {
	if windows(&pod.Spec) {
		return &obstruction{reason: ReasonWindows, level: min(sel.loud, Warning), why: fmt.Sprintf("pod %s runs on Windows, and Estiba moves volumes on Linux nodes only", pod.Name)}
	}

	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return &obstruction{reason: ReasonStaticPod, level: sel.quiet(), why: fmt.Sprintf("pod %s is the mirror of a file on its node and can't be restored", pod.Name)}
	}

	return nil
}

// placesObstacle looks for a claim that pods on Windows alone mount.
func placesObstacle(mounts []Carrier, sel selection) *obstruction {
	var first *obstruction

	for _, m := range mounts {
		o := placeObstacle(m.Pod, sel)
		if o == nil || o.reason != ReasonWindows {
			return nil
		}

		if first == nil {
			first = o
		}
	}

	return first
}

func runObstacle(pod *corev1.Pod, volume *corev1.Volume, sel selection) *obstruction {
	loud := sel.loud
	// An emptyDir of a pod that doesn't run yet, or no more, holds nothing that could be lost.
	if volume.EmptyDir != nil {
		loud = sel.quiet()
	}

	// What they hold is half of what a restore was to bring, also where it dies with the pod.
	if atGate(pod) {
		return &obstruction{reason: ReasonRestoring, level: sel.loud, why: fmt.Sprintf(
			"pod %s waits at its gate %s for a restore to fill its volumes; back it up again when it runs", pod.Name, contract.GateContainer)}
	}

	if held(pod) {
		return &obstruction{reason: ReasonRestoring, level: sel.loud, why: fmt.Sprintf(
			"pod %s is held back by its scheduling gate %s, for its volumes were not restored; see its annotation %s", pod.Name, contract.SchedulingGate, contract.AnnotationHeld)}
	}

	if pod.Spec.NodeName == "" {
		return &obstruction{reason: ReasonNoNode, level: loud, why: fmt.Sprintf("pod %s is not on a node yet", pod.Name)}
	}

	if pod.Status.Phase != corev1.PodRunning {
		return &obstruction{reason: ReasonNotRunning, level: loud, why: fmt.Sprintf("pod %s is %s, and only a volume that a running pod mounts can be read", pod.Name, phase(pod))}
	}

	if pod.DeletionTimestamp != nil {
		return &obstruction{reason: ReasonNotRunning, level: loud, why: fmt.Sprintf("pod %s is being deleted", pod.Name)}
	}

	return nil
}

// atGate reports whether a restore holds the pod: its volumes are empty, or hold half of what they are to.
func atGate(pod *corev1.Pod) bool {
	if phase(pod) != string(corev1.PodPending) || !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == contract.GateContainer }) {
		return false
	}

	return !slices.ContainsFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == contract.GateContainer && s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
	})
}

// held reports whether a restore that could not fill the pod's volumes keeps it from being scheduled.
func held(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == contract.SchedulingGate })
}

// claimObstacle looks for what keeps the volume behind a claim from being read through any pod.
func (s *Settings) claimObstacle(c Claim, sel selection) *obstruction {
	// Before all others: whatever else is the matter with it, its data isn't there.
	if c.Unfilled != "" {
		return &obstruction{reason: ReasonRestoring, level: sel.loud, why: c.Unfilled}
	}

	if mode := c.Claim.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return &obstruction{reason: ReasonBlock, level: sel.loud, why: "its volumeMode is Block, and a raw block device holds no files; take a CSI snapshot of it"}
	}

	if c.Claim.Status.Phase == corev1.ClaimLost {
		return &obstruction{reason: ReasonLost, level: sel.loud, why: fmt.Sprintf("the claim has lost its volume: PersistentVolume %s is gone", c.Claim.Spec.VolumeName)}
	}

	if c.Volume == nil {
		return &obstruction{reason: ReasonUnbound, level: sel.quiet(), why: unbound(c.Claim)}
	}

	if h := c.Volume.Spec.HostPath; h != nil && !s.allowsHostPath(h.Path) {
		return &obstruction{reason: ReasonHostPath, level: sel.loud, why: fmt.Sprintf("PersistentVolume %s is a hostPath (%s), which is the node's, and the setting host-path-prefixes doesn't allow it; the type local is taken",
			c.Volume.Name, h.Path)}
	}

	return nil
}

func unbound(claim *corev1.PersistentVolumeClaim) string {
	if claim.Status.Phase == corev1.ClaimPending {
		return "the claim is Pending, not bound to a volume yet: nothing to back up"
	}

	return fmt.Sprintf("the claim is not bound to a volume (its phase is %q)", claim.Status.Phase)
}

func phase(pod *corev1.Pod) string {
	if pod.Status.Phase == "" {
		return string(corev1.PodPending)
	}

	return string(pod.Status.Phase)
}
