package backup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestHooksOf(t *testing.T) {
	exec := []velerov1.BackupResourceHook{{Exec: &velerov1.ExecHook{Command: []string{"true"}}}}

	tests := map[string]struct {
		annotations map[string]string
		spec        *velerov1.BackupResourceHookSpec
		want        around
	}{
		"nothing":                       {},
		"a pre hook":                    {annotations: map[string]string{"pre.hook.backup.velero.io/command": "x"}, want: around{pre: true}},
		"a post hook":                   {annotations: map[string]string{"post.hook.backup.velero.io/command": "x"}, want: around{post: true}},
		"the old name of the pre hook":  {annotations: map[string]string{"hook.backup.velero.io/command": "x"}, want: around{pre: true}},
		"both":                          {annotations: map[string]string{"pre.hook.backup.velero.io/command": "x", "post.hook.backup.velero.io/command": "y"}, want: around{pre: true, post: true}},
		"one of each origin":            {annotations: map[string]string{"pre.hook.backup.velero.io/command": "x"}, spec: &velerov1.BackupResourceHookSpec{PostHooks: exec}, want: around{pre: true, post: true}},
		"a container without a command": {annotations: map[string]string{"pre.hook.backup.velero.io/container": "x"}},
		"a restore hook":                {annotations: map[string]string{"post.hook.restore.velero.io/command": "x"}},
		"hooks for all":                 {spec: &velerov1.BackupResourceHookSpec{PostHooks: exec}, want: around{post: true}},
		"hooks without commands":        {spec: &velerov1.BackupResourceHookSpec{}},
		"hooks for its namespace":       {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedNamespaces: []string{"sh*"}}, want: around{pre: true}},
		"hooks for another namespace":   {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedNamespaces: []string{"other"}}},
		"its namespace is excluded":     {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, ExcludedNamespaces: []string{"shop"}}},
		"hooks for pods":                {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedResources: []string{"pods"}}, want: around{pre: true}},
		"hooks for something else":      {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, IncludedResources: []string{"deployments"}}},
		"pods are excluded":             {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, ExcludedResources: []string{"pods"}}},
		"hooks for its labels":          {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}, want: around{pre: true}},
		"hooks for other labels":        {spec: &velerov1.BackupResourceHookSpec{PreHooks: exec, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Annotations: tt.annotations, Labels: map[string]string{"app": "db"}}}

			var hooks velerov1.BackupHooks
			if tt.spec != nil {
				hooks.Resources = append(hooks.Resources, *tt.spec)
			}

			assert.Equal(t, tt.want, hooksOf(pod, hooks))
		})
	}
}

func TestFreezeBound(t *testing.T) {
	for name, tt := range map[string]struct {
		value string
		want  time.Duration
		bad   bool
	}{
		"nothing":        {want: 10 * time.Minute},
		"a duration":     {value: " 1h30m ", want: 90 * time.Minute},
		"no unit":        {value: "90", want: 10 * time.Minute, bad: true},
		"a negative one": {value: "-1m", want: 10 * time.Minute, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{contract.AnnotationFreezeTimeout: tt.value}}}

			got, err := freezeBound(b)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.bad, err != nil)
		})
	}
}
