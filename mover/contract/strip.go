package contract

// Strip takes away all that Estiba ever adds to a Pod, a PersistentVolumeClaim
// or a PersistentVolume, given as decoded JSON: the records and, in a pod, the
// gates. What an earlier backup or restore has left must not be taken for a part
// of this one. It tells whether there was anything.
func Strip(object map[string]any) bool {
	stripped := false

	if metadata, ok := object["metadata"].(map[string]any); ok {
		stripped = stripAnnotations(metadata)
	}

	if spec, ok := object["spec"].(map[string]any); ok {
		stripped = stripNamed(spec, "initContainers", GateContainer) || stripped
		stripped = stripNamed(spec, "volumes", GateVolume) || stripped
		stripped = stripNamed(spec, "schedulingGates", SchedulingGate) || stripped
	}

	return stripped
}

func stripAnnotations(metadata map[string]any) bool {
	annotations, ok := metadata["annotations"].(map[string]any)
	if !ok {
		return false
	}

	before := len(annotations)

	for _, key := range []string{AnnotationVolumes, AnnotationVolume, AnnotationRestore, AnnotationHeld} {
		delete(annotations, key)
	}

	if len(annotations) == 0 {
		delete(metadata, "annotations")
	}

	return len(annotations) < before
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

// inner gives the object's field, which is an object, too; it is made where there is none.
func inner(object map[string]any, field string) map[string]any {
	m, ok := object[field].(map[string]any)
	if !ok {
		m = map[string]any{}
		object[field] = m
	}

	return m
}
