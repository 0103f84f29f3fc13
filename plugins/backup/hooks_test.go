package backup

import (
	"testing"

	"github.com/stretchr/testify/assert"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestHooked(t *testing.T) {
	exec := []velerov1.BackupResourceHook{{Exec: &velerov1.ExecHook{Command: []string{"true"}}}}

	tests := map[string]struct {
		annotations map[string]string
		spec        *velerov1.BackupResourceHookSpec
		want        bool
	}{
		"nothing":                       {},
		"a pre hook":                    {annotations: map[string]string{"pre.hook.backup.velero.io/command": "x"}, want: true},
		"a post hook":                   {annotations: map[string]string{"post.hook.backup.velero.io/command": "x"}, want: true},
		"the old name of the pre hook":  {annotations: map[string]string{"hook.backup.velero.io/command": "x"}, want: true},
		"a container without a command": {annotations: map[string]string{"pre.hook.backup.velero.io/container": "x"}},
		"a restore hook":                {annotations: map[string]string{"post.hook.restore.velero.io/command": "x"}},
		"hooks for all":                 {spec: &velerov1.BackupResourceHookSpec{PostHooks: exec}, want: true},
		"hooks without commands":        {spec: &velerov1.BackupResourceHookSpec{}},
		"hooks for its namespace":       {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedNamespaces: []string{"sh*"}}, want: true},
		"hooks for another namespace":   {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedNamespaces: []string{"other"}}},
		"its namespace is excluded":     {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, ExcludedNamespaces: []string{"shop"}}},
		"hooks for pods":                {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedResources: []string{"pods"}}, want: true},
		"hooks for something else":      {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedResources: []string{"deployments"}}},
		"pods are excluded":             {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, ExcludedResources: []string{"pods"}}},
		"hooks for its labels":          {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}, want: true},
		"hooks for other labels":        {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Annotations: tt.annotations, Labels: map[string]string{"app": "db"}}}

			var hooks velerov1.BackupHooks
			if tt.spec != nil {
				hooks.Resources = append(hooks.Resources, *tt.spec)
			}

			assert.Equal(t, tt.want, hooked(pod, hooks))
		})
	}
}
