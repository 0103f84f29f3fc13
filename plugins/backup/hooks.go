package backup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/estiba-dev/estiba/mover/contract"
)

// The annotations that make Velero run a command in a pod before or after it is
// backed up; the last is an old name of the first
// (velero v1.18.3 internal/hook/item_hook_handler.go).
const (
	preHook    = "pre.hook.backup.velero.io/command"
	postHook   = "post.hook.backup.velero.io/command"
	preHookOld = "hook.backup.velero.io/command"
)

// around says which commands Velero runs in a pod around its backup.
type around struct {
	// pre is run before: it may freeze the application, or write a dump into the volume.
	pre bool
	// post is run after the pod's action has returned: it may thaw, or remove the dump.
	post bool
}

// frozen reports whether the application may be quiesced in between. What has
// no command to thaw it again is not.
func (a around) frozen() bool { return a.pre && a.post }

// hooksOf returns which commands Velero runs around the pod's backup.
func hooksOf(pod *corev1.Pod, hooks velerov1.BackupHooks) around {
	a := around{
		pre:  pod.Annotations[preHook] != "" || pod.Annotations[preHookOld] != "",
		post: pod.Annotations[postHook] != "",
	}

	for _, r := range hooks.Resources {
		if len(r.PreHooks)+len(r.PostHooks) > 0 && applies(r, pod) {
			a.pre = a.pre || len(r.PreHooks) > 0
			a.post = a.post || len(r.PostHooks) > 0
		}
	}

	return a
}

// DefaultFreezeBound is how long hooks may keep an application quiesced for its
// volumes, where the Backup doesn't say otherwise.
const DefaultFreezeBound = 10 * time.Minute

// freezeBound reads the Backup's annotation. A value that can't be read is an
// error beside the default.
func freezeBound(b *velerov1.Backup) (time.Duration, error) {
	text := strings.TrimSpace(b.Annotations[contract.AnnotationFreezeTimeout])
	if text == "" {
		return DefaultFreezeBound, nil
	}

	bound, err := time.ParseDuration(text)
	if err == nil && bound <= 0 {
		err = errors.New("it must be more than 0")
	}

	if err != nil {
		return DefaultFreezeBound, fmt.Errorf("annotation %s of Backup %s is %q, which is not a duration such as 45m (%w); it counts as %s",
			contract.AnnotationFreezeTimeout, b.Name, text, err, DefaultFreezeBound)
	}

	return bound, nil
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
