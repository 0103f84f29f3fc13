package restore

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// gateMemory is the least limit that the gate's container can live with.
const gateMemory = "32Mi"

// gateDefaults are what the gate asks for: the waiting program takes 6 MiB, and a moment of a processor to start.
func gateDefaults() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("50m"),
		corev1.ResourceMemory:           resource.MustParse(gateMemory),
		corev1.ResourceEphemeralStorage: resource.MustParse("16Mi"),
	}
}

// smallResources returns what the gate asks for in the pod. It is little, so that the pod fits where it is made
// smaller after all actions, by resource modifiers; and no more is named than the pod's quality of service, or a
// quota that the pod was admitted under, may want: limits and requests are equal, and a limit is set only where
// each of the pod's containers has one.
func smallResources(pod *corev1.Pod) corev1.ResourceRequirements {
	all := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	if pod.Spec.Resources != nil || !slices.ContainsFunc(all, func(c corev1.Container) bool { return len(c.Resources.Requests)+len(c.Resources.Limits) > 0 }) {
		// What the pod as a whole may have holds for the gate, too; and a pod of the class BestEffort stays one.
		return corev1.ResourceRequirements{}
	}

	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}

	for name, want := range gateDefaults() {
		if least := leastOf(all, name); least != nil && name == corev1.ResourceCPU && least.Cmp(want) < 0 {
			want = *least
		}

		if named(pod.Spec.Containers, name, true) {
			r.Limits[name] = want
		}

		if name != corev1.ResourceEphemeralStorage || named(pod.Spec.Containers, name, false) {
			r.Requests[name] = want
		}
	}

	return r
}

// named reports whether each of the containers says what it needs of the resource: by a limit, or by a request, too.
func named(containers []corev1.Container, name corev1.ResourceName, limit bool) bool {
	return !slices.ContainsFunc(containers, func(c corev1.Container) bool {
		_, limited := c.Resources.Limits[name]
		_, requested := c.Resources.Requests[name]

		return !limited && (limit || !requested)
	})
}

// leastCPU is what the gate can start with in a few seconds.
const leastCPU = "10m"

// leastOf returns the smallest limit or request of the resource that any container has, but no less than leastCPU;
// nil where none has any.
func leastOf(containers []corev1.Container, name corev1.ResourceName) *resource.Quantity {
	var least *resource.Quantity

	for _, c := range containers {
		for _, l := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
			if q, ok := l[name]; ok && (least == nil || q.Cmp(*least) < 0) {
				least = &q
			}
		}
	}

	if floor := resource.MustParse(leastCPU); least != nil && least.Cmp(floor) < 0 {
		least = &floor
	}

	return least
}

// likeTheWorkload returns the resources of the pod's first container, raised to what the gate can live with:
// a range or a quota of the namespace that admits that container admits the gate.
func likeTheWorkload(pod *corev1.Pod) corev1.ResourceRequirements {
	if len(pod.Spec.Containers) == 0 {
		return corev1.ResourceRequirements{}
	}

	only := func(all corev1.ResourceList) corev1.ResourceList {
		some := corev1.ResourceList{}

		for name := range gateDefaults() {
			if q, ok := all[name]; ok {
				some[name] = q
			}
		}

		return some
	}

	first := pod.Spec.Containers[0].Resources
	r := corev1.ResourceRequirements{Requests: only(first.Requests), Limits: only(first.Limits)}

	least, memory := resource.MustParse(gateMemory), corev1.ResourceMemory

	limit, limited := r.Limits[memory]
	if request, ok := r.Requests[memory]; ok && limited && request.Cmp(limit) == 0 && limit.Cmp(least) < 0 {
		// They were equal, and a range of the namespace may want that.
		r.Requests[memory] = least
	}

	if limited && limit.Cmp(least) < 0 {
		r.Limits[memory] = least
	}

	return r
}
