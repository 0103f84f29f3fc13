package contract

// Strip takes away all that Estiba ever adds to a Pod, a PersistentVolumeClaim
// or a PersistentVolume, given as decoded JSON: the records, in a pod the
// gates, and in a claim the label that says it isn't filled. What an earlier backup or restore has left must not be taken for a part
// of this one. It tells whether there was anything.
func Strip(object map[string]any) bool {
	stripped := false

	if metadata, ok := object["metadata"].(map[string]any); ok {
		annotated := stripKeys(metadata, "annotations", AnnotationVolumes, AnnotationVolume, AnnotationVolumeUnprotected, AnnotationRestore, AnnotationHeld)
		stripped = stripKeys(metadata, "labels", LabelUnfilled) || annotated
	}

	if spec, ok := object["spec"].(map[string]any); ok {
		stripped = stripNamed(spec, "initContainers", GateContainer) || stripped
		stripped = stripNamed(spec, "volumes", GateVolume) || stripped
		stripped = stripNamed(spec, "schedulingGates", SchedulingGate) || stripped
	}

	return stripped
}

// stripKeys drops the keys from a map of the metadata, and the map if nothing is left in it.
func stripKeys(metadata map[string]any, field string, keys ...string) bool {
	values, ok := metadata[field].(map[string]any)
	if !ok {
		return false
	}

	before := len(values)

	for _, key := range keys {
		delete(values, key)
	}

	if len(values) == 0 {
		delete(metadata, field)
	}

	return len(values) < before
}

// stripNamed drops the entries of a list that have the name.
func stripNamed(spec map[string]any, list, name string) bool {
	entries, ok := spec[list].([]any)
	if !ok {
		return false
	}

	kept := make([]any, 0, len(entries))

	for _, e := range entries {
		if m, ok := e.(map[string]any); ok && m["name"] == name {
			continue
		}

		kept = append(kept, e)
	}

	if len(kept) == len(entries) {
		return false
	}

	if len(kept) == 0 {
		delete(spec, list)
	} else {
		spec[list] = kept
	}

	return true
}

// Annotate sets an annotation of an object that is given as decoded JSON.
func Annotate(object map[string]any, key, value string) {
	inner(inner(object, "metadata"), "annotations")[key] = value
}

// Label sets a label of an object that is given as decoded JSON.
func Label(object map[string]any, key, value string) {
	inner(inner(object, "metadata"), "labels")[key] = value
}

// inner returns the object's field, which is an object, too; it is made where there is none.
func inner(object map[string]any, field string) map[string]any {
	m, ok := object[field].(map[string]any)
	if !ok {
		m = map[string]any{}
		object[field] = m
	}

	return m
}
