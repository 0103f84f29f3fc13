package backup

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/contract"
)

// Velero runs the hooks of the pods that are in the backup, and of no others.
func TestAClaimIsFrozenOnlyByPodsThatAreInTheBackup(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *velerov1.Backup, p *corev1.Pod)
		policy string
		frozen bool
	}{
		"all that there is": {frozen: true},
		"claims and volumes only": {change: func(b *velerov1.Backup, _ *corev1.Pod) {
			b.Spec.IncludedResources = []string{"persistentvolumeclaims", "persistentvolumes"}
		}},
		"all but pods": {change: func(b *velerov1.Backup, _ *corev1.Pod) { b.Spec.ExcludedNamespaceScopedResources = []string{"pods"} }},
		"all but this pod": {change: func(_ *velerov1.Backup, p *corev1.Pod) {
			p.Labels = map[string]string{contract.LabelExcludeFromBackup: "true"}
		}},
		"another label: the claim takes its pods along": {change: func(b *velerov1.Backup, _ *corev1.Pod) {
			b.Spec.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}
		}, frozen: true},
		"pods of other names": {policy: "namespacedFilterPolicies: [{namespaces: [shop], resourceFilters: [{kinds: [pods], excludedNames: [\"web*\"]}]}]"},
		"anything of other names": {
			policy: "namespacedFilterPolicies: [{namespaces: [\"s*\"], resourceFilters: [{names: [data]}]}]",
		},
		"pods of other names elsewhere": {
			policy: "namespacedFilterPolicies: [{namespaces: [bank], resourceFilters: [{kinds: [po], names: [x]}]}]", frozen: true,
		},
		"claims alone, which take their pods along": {
			policy: "namespacedFilterPolicies: [{namespaces: [shop], resourceFilters: [{kinds: [pvc]}]}]", frozen: true,
		},
		"the namespace's own filter before one that matches it": {
			policy: "namespacedFilterPolicies: [{namespaces: [\"*\"], resourceFilters: [{kinds: [pods], names: [x]}]}, {namespaces: [shop], resourceFilters: [{kinds: [pods], names: [web]}]}]",
			frozen: true,
		},
		"no pods, by policy":     {policy: "includeExcludePolicy: {excludedNamespaceScopedResources: [pods]}"},
		"other kinds, by policy": {policy: "includeExcludePolicy: {includedNamespaceScopedResources: [persistentvolumeclaims]}"},
	} {
		t.Run(name, func(t *testing.T) {
			claim, pv := boundClaim("data")
			pod := podWith("web", map[string]string{
				contract.AnnotationBackupVolumes: "data", "pre.hook.backup.velero.io/command": "freeze", "post.hook.backup.velero.io/command": "thaw",
			}, ofClaim("data", "data"))
			policy := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "policy"}, Data: map[string]string{
				"p": "version: v1\n" + c.policy,
			}}

			backup := &velerov1.Backup{}
			if c.change != nil {
				c.change(backup, pod)
			}

			b := newBench(t, claim, pv, pod, policy)
			backup.Spec.StorageLocation = "default"
			b.backup.Spec = backup.Spec
			b.backup.Spec.ResourcePolicy = &corev1.TypedLocalObjectReference{Kind: "configmap", Name: "policy"}

			b.run(claim)

			made := b.jobs()
			require.Len(t, made, 1)
			assert.Equal(t, c.frozen, made[0].Spec.Options.Frozen)
			assert.Equal(t, c.frozen, made[0].Spec.Options.Deadline != nil)
		})
	}
}
