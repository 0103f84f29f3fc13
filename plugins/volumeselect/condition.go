package volumeselect

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// conditions are what a volume must fulfil for a policy to apply. A condition
// that is left out is fulfilled by every volume. The meaning of each is
// Velero's (velero v1.18.3 internal/resourcepolicies/volume_resources.go): both
// must come to the same answer, or a volume is moved twice or never.
type conditions struct {
	Capacity       string            `yaml:"capacity,omitempty"`
	StorageClass   []string          `yaml:"storageClass,omitempty"`
	NFS            *nfsSource        `yaml:"nfs,omitempty"`
	CSI            *csiSource        `yaml:"csi,omitempty"`
	VolumeTypes    []string          `yaml:"volumeTypes,omitempty"`
	PVCLabels      map[string]string `yaml:"pvcLabels,omitempty"`
	PVCPhase       []string          `yaml:"pvcPhase,omitempty"`
	PVCVolumeMode  string            `yaml:"pvcVolumeMode,omitempty"`
	PVCAccessModes []string          `yaml:"pvcAccessModes,omitempty"`
}

type nfsSource struct {
	Server string `yaml:"server,omitempty"`
	Path   string `yaml:"path,omitempty"`
}

type csiSource struct {
	Driver           string            `yaml:"driver,omitempty"`
	VolumeAttributes map[string]string `yaml:"volumeAttributes,omitempty"`
}

// Traits are what policies look at.
type Traits struct {
	capacity     resource.Quantity
	storageClass string
	nfs          *nfsSource
	csi          *csiSource
	volumeType   string
	// ephemeral says that the claim is a generic ephemeral volume: to Velero, the
	// pod's volume is of that type, and the claim's of the type behind it.
	ephemeral   bool
	labels      map[string]string
	phase       string
	mode        string
	accessModes []string
}

// TraitsOf collects what policies look at. Where there is a PersistentVolume,
// the pod's volume doesn't count. Each may be nil.
func TraitsOf(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim, volume *corev1.Volume) Traits {
	var t Traits

	switch {
	case pv != nil:
		t.capacity = *pv.Spec.Capacity.Storage()
		t.storageClass = pv.Spec.StorageClassName
		t.volumeType = policyType(typeOf(&pv.Spec.PersistentVolumeSource))

		if s := pv.Spec.NFS; s != nil {
			t.nfs = &nfsSource{Server: s.Server, Path: s.Path}
		}

		if s := pv.Spec.CSI; s != nil {
			t.csi = &csiSource{Driver: s.Driver, VolumeAttributes: s.VolumeAttributes}
		}
	case volume != nil:
		t.volumeType = policyType(typeOf(&volume.VolumeSource))

		if s := volume.NFS; s != nil {
			t.nfs = &nfsSource{Server: s.Server, Path: s.Path}
		}

		if s := volume.CSI; s != nil {
			t.csi = &csiSource{Driver: s.Driver, VolumeAttributes: s.VolumeAttributes}
		}
	}

	if claim != nil {
		t.addClaim(claim)
	}

	return t
}

func (t *Traits) addClaim(claim *corev1.PersistentVolumeClaim) {
	t.labels = claim.Labels
	t.ephemeral = OwnedByPod(claim)
	t.phase = string(claim.Status.Phase)

	if claim.Spec.VolumeMode != nil {
		t.mode = string(*claim.Spec.VolumeMode)
	}

	for _, m := range claim.Spec.AccessModes {
		t.accessModes = append(t.accessModes, string(m))
	}
}

func (c conditions) match(t Traits) bool {
	return c.matchCapacity(t) && c.matchSource(t) && c.matchClaim(t) &&
		(len(c.StorageClass) == 0 || t.storageClass != "" && slices.Contains(c.StorageClass, t.storageClass)) &&
		(len(c.VolumeTypes) == 0 || slices.Contains(c.VolumeTypes, t.volumeType) || t.ephemeral && slices.Contains(c.VolumeTypes, kindEphemeral))
}

func (c conditions) matchCapacity(t Traits) bool {
	low, high, err := c.capacityRange()

	return err == nil && low.Cmp(t.capacity) <= 0 && (high.IsZero() || high.Cmp(t.capacity) >= 0)
}

func (c conditions) matchSource(t Traits) bool {
	if want := c.NFS; want != nil {
		if t.nfs == nil || want.Server != "" && want.Server != t.nfs.Server || want.Path != "" && want.Path != t.nfs.Path {
			return false
		}
	}

	return c.CSI == nil || t.csi != nil && c.CSI.match(t.csi)
}

func (want *csiSource) match(have *csiSource) bool {
	if want.Driver != "" && want.Driver != have.Driver {
		return false
	}

	// An attribute that is wanted empty is fulfilled by one that is absent, but
	// not by a volume without any attributes.
	if len(want.VolumeAttributes) > 0 && len(have.VolumeAttributes) == 0 {
		return false
	}

	for k, v := range want.VolumeAttributes {
		if have.VolumeAttributes[k] != v {
			return false
		}
	}

	return true
}

func (c conditions) matchClaim(t Traits) bool {
	for k, v := range c.PVCLabels {
		if have, ok := t.labels[k]; !ok || have != v {
			return false
		}
	}

	if len(c.PVCPhase) > 0 && (t.phase == "" || !slices.Contains(c.PVCPhase, t.phase)) {
		return false
	}

	if c.PVCVolumeMode != "" && c.PVCVolumeMode != t.mode {
		return false
	}

	return len(c.PVCAccessModes) == 0 || sameModes(c.PVCAccessModes, t.accessModes)
}

func sameModes(want, have []string) bool {
	if len(want) != len(have) {
		return false
	}

	contained := func(in, of []string) bool {
		return !slices.ContainsFunc(of, func(m string) bool { return !slices.Contains(in, m) })
	}

	return contained(want, have) && contained(have, want)
}
