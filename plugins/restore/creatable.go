package restore

import (
	"strings"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// creatable drops from the pod what only a running one can have, and what the API server computes for
// each new pod from classes that may differ in this cluster: it refuses a new pod that brings them, and
// the pod's controller would make another one, without a gate.
func creatable(log logrus.FieldLogger, item *unstructured.Unstructured) {
	debugged, _, _ := unstructured.NestedSlice(item.Object, "spec", "ephemeralContainers")
	if len(debugged) > 0 {
		log.Infof("the debugging containers of the pod are left out (%s): no new pod may have any (spec.ephemeralContainers)", namesOf(debugged))
	}

	if limit, found, _ := unstructured.NestedFieldNoCopy(item.Object, "spec", "activeDeadlineSeconds"); found {
		log.Warnf("the pod comes back without its deadline of %v s (spec.activeDeadlineSeconds): the wait for its data would count, and end it", limit)
	}

	for _, field := range []string{
		"ephemeralContainers",
		"activeDeadlineSeconds",
		// Set by admission from the PriorityClass and the RuntimeClass, and refused where these say something else now.
		"preemptionPolicy",
		"overhead",
	} {
		unstructured.RemoveNestedField(item.Object, "spec", field)
	}
}

// namesOf returns the names of a list of containers, as a text.
func namesOf(containers []any) string {
	names := make([]string, 0, len(containers))

	for _, c := range containers {
		container, _ := c.(map[string]any)
		name, _ := container["name"].(string)
		names = append(names, name)
	}

	return strings.Join(names, ", ")
}
