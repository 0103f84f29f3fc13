package volumeselect

import (
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// filters is what a policy's ConfigMap says about which items are in a backup, as far as it is about pods
// (velero v1.18.3 internal/resourcepolicies/resource_policies.go). Velero has checked it before any action runs.
type filters struct {
	IncludeExcludePolicy struct {
		Included []string `yaml:"includedNamespaceScopedResources"`
		Excluded []string `yaml:"excludedNamespaceScopedResources"`
	} `yaml:"includeExcludePolicy"`
	Namespaced []namespaced `yaml:"namespacedFilterPolicies"`
}

type namespaced struct {
	Namespaces []string         `yaml:"namespaces"`
	Resources  []resourceFilter `yaml:"resourceFilters"`
}

type resourceFilter struct {
	Kinds    []string `yaml:"kinds"`
	Names    []string `yaml:"names"`
	Excluded []string `yaml:"excludedNames"`
}

// podNames are the names that the API server's discovery knows pods under.
var podNames = []string{"pods", "pod", "po"}

// LeavesOut reports whether the filters beside the policies keep the pod out of the backup, though a claim that it mounts
// is in it.
func (p *Policies) LeavesOut(pod *corev1.Pod) bool {
	return p != nil && slices.ContainsFunc(p.filters, func(f filters) bool { return f.leavesOut(pod) })
}

func (f filters) leavesOut(pod *corev1.Pod) bool {
	kinds := f.IncludeExcludePolicy
	if namesPods(kinds.Excluded) || len(kinds.Included) > 0 && !namesPods(kinds.Included) {
		return true
	}

	n := f.of(pod.Namespace)
	if n == nil {
		return false
	}

	// A kind that isn't named passes when a claim brings it along.
	for _, all := range []bool{false, true} {
		for _, r := range n.Resources {
			if r.catchAll() == all && (all || namesPods(r.Kinds)) {
				return !r.admits(pod.Name)
			}
		}
	}

	return false
}

// of returns the policy of a namespace: one that names it counts before all that match it.
func (f filters) of(namespace string) *namespaced {
	for _, named := range []bool{true, false} {
		for i := range f.Namespaced {
			if slices.ContainsFunc(f.Namespaced[i].Namespaces, func(n string) bool {
				return n == namespace || !named && globs(n, namespace)
			}) {
				return &f.Namespaced[i]
			}
		}
	}

	return nil
}

func (r resourceFilter) catchAll() bool {
	return len(r.Kinds) == 0 || len(r.Kinds) == 1 && r.Kinds[0] == "*"
}

func (r resourceFilter) admits(name string) bool {
	fits := func(pattern string) bool { return globs(pattern, name) }

	return !slices.ContainsFunc(r.Excluded, fits) && (len(r.Names) == 0 || slices.ContainsFunc(r.Names, fits))
}

func namesPods(kinds []string) bool {
	return slices.ContainsFunc(kinds, func(k string) bool { return k == "*" || slices.Contains(podNames, k) })
}

func globs(pattern, name string) bool {
	ok, err := path.Match(pattern, name)

	return pattern == "*" || err == nil && ok
}
