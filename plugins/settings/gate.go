package settings

import (
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// The keys of the gate bear the names that Velero has for those of its own init
// container (velero v1.18.3 pkg/restore/actions/pod_volume_restore_action.go).
const (
	keyImage           = "image"
	keyCPURequest      = "cpuRequest"
	keyMemoryRequest   = "memRequest"
	keyCPULimit        = "cpuLimit"
	keyMemoryLimit     = "memLimit"
	keyRunAsUser       = "secCtxRunAsUser"
	keyRunAsGroup      = "secCtxRunAsGroup"
	keyEscalation      = "secCtxAllowPrivilegeEscalation"
	keySecurityContext = "secCtx"
)

// Gate says how the gate's container differs from what it is by default.
type Gate struct {
	// Image is used as it is written here; empty for that of the node daemon.
	Image string
	// Requests and Limits replace those of the same resource.
	Requests, Limits corev1.ResourceList
	// SecurityContext holds the fields that differ; nil where none does.
	SecurityContext *corev1.SecurityContext
}

// Apply changes the container as the settings say. What they leave out stays as it is.
func (g Gate) Apply(c *corev1.Container) error {
	if g.Image != "" {
		c.Image = g.Image
	}

	c.Resources.Requests = overlaid(c.Resources.Requests, g.Requests)
	c.Resources.Limits = overlaid(c.Resources.Limits, g.Limits)

	for name, limit := range c.Resources.Limits {
		request, asked := c.Resources.Requests[name]
		if !asked || request.Cmp(limit) <= 0 {
			continue
		}

		// One of the two is a default, for both together are checked: it gives way.
		if _, set := g.Limits[name]; set {
			c.Resources.Requests[name] = limit
		} else {
			c.Resources.Limits[name] = request
		}
	}

	if g.SecurityContext == nil {
		return nil
	}

	return g.secure(c)
}

func (g Gate) secure(c *corev1.Container) error {
	text, err := json.Marshal(g.SecurityContext)
	if err != nil {
		return fmt.Errorf("apply the security context of the settings to container %s: %w", c.Name, err)
	}

	sc := &corev1.SecurityContext{}
	if c.SecurityContext != nil {
		sc = c.SecurityContext.DeepCopy()
	}

	if err := json.Unmarshal(text, sc); err != nil {
		return fmt.Errorf("apply the security context of the settings to container %s: %w", c.Name, err)
	}

	// Who asks for root by its number means it; the kubelet would refuse the container.
	if g.SecurityContext.RunAsNonRoot == nil && ptr.Deref(g.SecurityContext.RunAsUser, 1) == 0 {
		sc.RunAsNonRoot = ptr.To(false)
	}

	c.SecurityContext = sc

	return nil
}

func overlaid(base, over corev1.ResourceList) corev1.ResourceList {
	all := corev1.ResourceList{}

	for _, l := range []corev1.ResourceList{base, over} {
		for name, q := range l {
			all[name] = q
		}
	}

	return all
}

// gate sets what a key of the gate stands for, and reports whether there is such a key.
func (r *reader) gate(key, value string) bool {
	g := &r.settings.Gate

	switch key {
	case keyImage:
		g.Image = value
	case keyCPURequest:
		r.quantity(key, value, &g.Requests, corev1.ResourceCPU)
	case keyMemoryRequest:
		r.quantity(key, value, &g.Requests, corev1.ResourceMemory)
	case keyCPULimit:
		r.quantity(key, value, &g.Limits, corev1.ResourceCPU)
	case keyMemoryLimit:
		r.quantity(key, value, &g.Limits, corev1.ResourceMemory)
	case keyRunAsUser, keyRunAsGroup, keyEscalation, keySecurityContext:
		if value != "" {
			r.security(key, value)
		}
	default:
		return false
	}

	return true
}

func (r *reader) quantity(key, value string, into *corev1.ResourceList, name corev1.ResourceName) {
	if value == "" {
		return
	}

	q, err := Quantity(value)
	if err != nil || q.Sign() < 0 {
		r.failf("%s%s: %q is not allowed, only a quantity such as 100m or 64Mi; the default counts", r.where, key, value)

		return
	}

	if *into == nil {
		*into = corev1.ResourceList{}
	}

	(*into)[name] = q
}

// security sets fields of the security context. The keys are read in their
// order, so that secCtx, the first, gives way to the ones that name one field.
func (r *reader) security(key, value string) {
	sc := &corev1.SecurityContext{}
	if had := r.settings.Gate.SecurityContext; had != nil {
		sc = had.DeepCopy()
	}

	var err error

	switch key {
	case keyRunAsUser:
		sc.RunAsUser, err = id(value)
	case keyRunAsGroup:
		sc.RunAsGroup, err = id(value)
	case keyEscalation:
		var allowed bool
		allowed, err = strconv.ParseBool(value)
		sc.AllowPrivilegeEscalation = &allowed
	default:
		if err = yaml.UnmarshalStrict([]byte(value), sc); err != nil {
			err = fmt.Errorf("only the YAML of a container's securityContext (%w)", err)
		}
	}

	if err != nil {
		r.failf("%s%s: %q is not allowed: %v; the default counts", r.where, key, value, err)

		return
	}

	r.settings.Gate.SecurityContext = sc
}

func id(value string) (*int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}

	if err != nil {
		return nil, fmt.Errorf("only a whole number from 0 up (%w)", err)
	}

	return &n, nil
}

// gateFits takes back requests that are above the limits beside them: no pod could be made so.
func (r *reader) gateFits() {
	g := &r.settings.Gate

	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := g.Requests[name], g.Limits[name]
		if !limit.IsZero() && request.Cmp(limit) > 0 {
			r.failf("%s%sRequest: %s is above the limit of %s; the request counts as the limit", r.where, map[corev1.ResourceName]string{
				corev1.ResourceCPU: "cpu", corev1.ResourceMemory: "mem",
			}[name], request.String(), limit.String())

			g.Requests[name] = limit
		}
	}
}
