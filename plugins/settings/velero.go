package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// VeleroGate returns the labels of the ConfigMap by which Velero sets up its own
// init container (velero v1.18.3 pkg/restore/actions/pod_volume_restore_action.go).
// The first one may have any value.
func VeleroGate() (label, named, kind string) {
	return "velero.io/plugin-config", "velero.io/pod-volume-restore", "RestoreItemAction"
}

// WithVeleroGate returns the settings with those of the gate as Velero's ConfigMap
// has them, for where there is none of Estiba's. The image and the command there
// are those of another program, and don't count. The caller passes all ConfigMaps
// with the labels of VeleroGate; Velero itself refuses more than one.
func (s Settings) WithVeleroGate(found []corev1.ConfigMap) (Settings, Problems) {
	r := reader{settings: s}

	switch len(found) {
	case 0:
		return s, Problems{}
	case 1:
	default:
		label, named, kind := VeleroGate()
		r.failf("more than one ConfigMap bears the labels %s and %s=%s: %s; none of them counts until all but one are deleted or lose the labels", label, named, kind, names(found))

		return r.settings, r.problems
	}

	r.where = fmt.Sprintf("ConfigMap %s/%s, key ", found[0].Namespace, found[0].Name)

	values := maps.Clone(found[0].Data)
	for _, key := range []string{keyImage, "command"} {
		if values[key] != "" {
			r.problems.Warnings = append(r.problems.Warnings, fmt.Sprintf("%s%s is for Velero's own init container and doesn't count for Estiba's", r.where, key))
		}

		delete(values, key)
	}

	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !r.gate(key, strings.TrimSpace(values[key])) {
			r.unknown(key)
		}
	}

	r.gateFits()

	return r.settings, r.problems
}
