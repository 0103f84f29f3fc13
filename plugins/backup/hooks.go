package backup

import (
	"path"
	"slices"
	"strings"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// hookCommands are the annotations that make Velero run a command in a pod
// before or after it is backed up; the last is an old name of the first
// (velero v1.18.3 internal/hook/item_hook_handler.go).
func hookCommands() []string {
	return []string{"pre.hook.backup.velero.io/command", "post.hook.backup.velero.io/command", "hook.backup.velero.io/command"}
}

// hooked tells whether Velero runs commands in the pod around its backup: its
// application may be quiesced until the pod's action returns.
func hooked(pod *corev1.Pod, hooks velerov1.BackupHooks) bool {
	for _, key := range hookCommands() {
		if pod.Annotations[key] != "" {
			return true
		}
	}

	return slices.ContainsFunc(hooks.Resources, func(r velerov1.BackupResourceHookSpec) bool {
		return len(r.PreHooks)+len(r.PostHooks) > 0 && applies(r, pod)
	})
}

func applies(r velerov1.BackupResourceHookSpec, pod *corev1.Pod) bool {
	if !selected(pod.Namespace, r.IncludedNamespaces, r.ExcludedNamespaces) {
		return false
	}

	// Velero looks the names up in the API server's discovery; pods have these.
	if !slices.ContainsFunc([]string{"pods", "pod", "po"}, func(name string) bool { return selected(name, r.IncludedResources, nil) }) ||
		slices.ContainsFunc([]string{"pods", "pod", "po"}, func(name string) bool { return slices.Contains(r.ExcludedResources, name) }) {
		return false
	}

	if r.LabelSelector == nil {
		return true
	}

	selector, err := metav1.LabelSelectorAsSelector(r.LabelSelector)
	// A selector that can't be read may mean this pod: waiting costs less than
	// thawing an application whose volumes are being read.
	return err != nil || selector.Matches(labels.Set(pod.Labels))
}

func selected(name string, included, excluded []string) bool {
	match := func(pattern string) bool {
		ok, err := path.Match(strings.ToLower(pattern), name)

		return pattern == "*" || err == nil && ok
	}

	return !slices.ContainsFunc(excluded, match) && (len(included) == 0 || slices.ContainsFunc(included, match))
}
