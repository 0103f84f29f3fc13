package backup

import (
	"slices"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// admitsNamespace reports whether the backup's filters let the namespace's items through.
func admitsNamespace(b *velerov1.Backup, namespace string) bool {
	return selected(namespace, b.Spec.IncludedNamespaces, b.Spec.ExcludedNamespaces)
}

// admitsClaim reports whether the claim is going to be in the backup: by itself,
// or beside a pod that mounts it. Velero takes a pod's claims along whatever the
// labels of the claims are (velero v1.18.3 pkg/backup/item_backupper.go).
func admitsClaim(b *velerov1.Backup, claim *corev1.PersistentVolumeClaim, pods []corev1.Pod) bool {
	if !admitsNamespace(b, claim.Namespace) || excludedByLabel(claim.Labels) ||
		!admitsResource(b, "persistentvolumeclaims", "persistentvolumeclaim", "pvc") {
		return false
	}

	if admitsLabels(b, claim.Labels) {
		return true
	}

	return admitsResource(b, "pods", "pod", "po") && slices.ContainsFunc(pods, func(p corev1.Pod) bool {
		return p.Namespace == claim.Namespace && !excludedByLabel(p.Labels) && admitsLabels(b, p.Labels) &&
			slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v1alpha1.ClaimName(&p, &v) == claim.Name })
	})
}

// admitsPod reports whether a running pod that mounts a claim of the backup is in the backup, too. Velero takes it
// along whatever its labels are, and runs its hooks (velero v1.18.3 pkg/itemblock/actions/pvc_action.go).
func admitsPod(b *velerov1.Backup, pod *corev1.Pod, policies *volumeselect.Policies) bool {
	return admitsNamespace(b, pod.Namespace) && !excludedByLabel(pod.Labels) && pod.DeletionTimestamp.IsZero() &&
		admitsResource(b, "pods", "pod", "po") && !policies.LeavesOut(pod)
}

func excludedByLabel(l map[string]string) bool { return l[contract.LabelExcludeFromBackup] == "true" }

// admitsResource looks for any of a resource's names: Velero looks them up in the API server's discovery.
func admitsResource(b *velerov1.Backup, names ...string) bool {
	included := slices.Concat(b.Spec.IncludedResources, b.Spec.IncludedNamespaceScopedResources)
	excluded := slices.Concat(b.Spec.ExcludedResources, b.Spec.ExcludedNamespaceScopedResources)

	in := slices.ContainsFunc(names, func(n string) bool { return selected(n, included, nil) })
	out := slices.ContainsFunc(names, func(n string) bool { return slices.Contains(excluded, n) }) || slices.Contains(excluded, "*")

	return in && !out
}

func admitsLabels(b *velerov1.Backup, l map[string]string) bool {
	selectors := b.Spec.OrLabelSelectors
	if b.Spec.LabelSelector != nil {
		selectors = append([]*metav1.LabelSelector{b.Spec.LabelSelector}, selectors...)
	}

	return len(selectors) == 0 || slices.ContainsFunc(selectors, func(s *metav1.LabelSelector) bool {
		selector, err := metav1.LabelSelectorAsSelector(s)

		return err == nil && selector.Matches(labels.Set(l))
	})
}
