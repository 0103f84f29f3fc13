package volumeselect

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// Kinds of volumes that the decision tells apart, by their names in a pod's spec.
const (
	kindClaim     = "persistentVolumeClaim"
	kindEmptyDir  = "emptyDir"
	kindHostPath  = "hostPath"
	kindEphemeral = "ephemeral"
	kindNFS       = "nfs"
	kindCSI       = "csi"
)

// typeOf returns the name of the one source that is set in a pod's volume or in a
// PersistentVolume, as it is written in JSON; empty where none is. In both of
// them each source is a pointer of its own.
func typeOf(source any) string {
	v := reflect.ValueOf(source).Elem()

	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Pointer && !v.Field(i).IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")

			return name
		}
	}

	return ""
}

// policyType returns the name that volume policies have for a type of volume.
// It is the one in the spec but for one, which they spell their own way, and a
// claim: what counts there is the PersistentVolume behind it.
func policyType(name string) string {
	switch name {
	case "storageos":
		return "storageOS"
	case kindClaim:
		return ""
	default:
		return name
	}
}

// noData reports whether Kubernetes fills volumes of the kind itself, from
// objects that are in the backup anyway or from an image.
func noData(kind string) bool {
	switch kind {
	case "secret", "configMap", "projected", "downwardAPI", "image", "gitRepo":
		return true
	default:
		return false
	}
}

// use says how the containers of a pod use a volume.
type use struct{ mounted, block bool }

// useOf looks at all containers, the init containers included: the kubelet sets
// up a volume as soon as one of them names it.
func useOf(spec *corev1.PodSpec, volume string) use {
	var u use

	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			u.add(&list[i], volume)
		}
	}

	return u
}

func (u *use) add(c *corev1.Container, volume string) {
	for _, m := range c.VolumeMounts {
		u.mounted = u.mounted || m.Name == volume
	}

	for _, d := range c.VolumeDevices {
		u.block = u.block || d.Name == volume
	}
}

// windows reports whether the pod says that it runs on Windows.
func windows(spec *corev1.PodSpec) bool {
	if spec.OS != nil {
		return spec.OS.Name == corev1.Windows
	}

	if system, ok := spec.NodeSelector[corev1.LabelOSStable]; ok {
		return system == string(corev1.Windows)
	}

	return windowsByAffinity(spec.Affinity)
}

// windowsByAffinity reports whether every term that a node may fulfil wants Windows.
func windowsByAffinity(a *corev1.Affinity) bool {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}

	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms

	return len(terms) > 0 && !slices.ContainsFunc(terms, func(t corev1.NodeSelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool {
			return r.Key == corev1.LabelOSStable && r.Operator == corev1.NodeSelectorOpIn && slices.Equal(r.Values, []string{string(corev1.Windows)})
		})
	})
}

// OwnedByPod reports whether the claim was made for a pod's generic ephemeral volume.
func OwnedByPod(claim *corev1.PersistentVolumeClaim) bool {
	o := metav1.GetControllerOf(claim)

	return o != nil && o.Kind == "Pod"
}

// mounts reports whether the claim stands behind the pod's volume. That of a
// generic ephemeral volume is named after both, and the pod owns it.
func mounts(pod *corev1.Pod, v *corev1.Volume, claim *corev1.PersistentVolumeClaim) bool {
	return v1alpha1.ClaimName(pod, v) == claim.Name && (v.Ephemeral == nil || metav1.IsControlledBy(claim, pod))
}

// KindOf returns the kind by which jobs know the volume; empty for those that can't be moved.
func KindOf(v *corev1.Volume) v1alpha1.VolumeKind {
	switch typeOf(&v.VolumeSource) {
	case kindClaim, kindEphemeral:
		return v1alpha1.VolumePersistentVolumeClaim
	case kindEmptyDir:
		return v1alpha1.VolumeEmptyDir
	case kindNFS:
		return v1alpha1.VolumeNFS
	case kindCSI:
		return v1alpha1.VolumeCSI
	case kindHostPath:
		return v1alpha1.VolumeHostPath
	default:
		return ""
	}
}
