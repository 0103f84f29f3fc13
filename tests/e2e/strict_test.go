//go:build e2e

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// A namespace that enforces the restricted standard, and wants requests and
// limits within a range, takes the gate as it takes the workload. Where it doesn't,
// because of what an administrator has set, it is said by name, and nothing starts.
func TestAStrictNamespaceTakesTheGateOrSaysWhatToChange(t *testing.T) {
	c := open(t)
	c.strictNamespace()
	c.strictWorkload()

	dir := c.volume(c.podAgain())
	require.NoError(t, lab.FillVolume(dir, lab.Data{Files: 10, Bytes: 1 << 16, Seed: 28}))
	kept := c.keepVolume(c.podAgain())
	c.backup(c.namespace)

	t.Run("what can't be read or isn't admitted is said", func(t *testing.T) {
		c := c.within(t)
		c.deleteNamespace()
		c.strictNamespace()
		c.pluginSettings(map[string]string{"cpuLimit": "8", "memLimit": "much"})

		describe := c.restorePartial(c.namespace + "-strict")
		assert.Contains(t, describe, `key memLimit: "much" is not allowed`)
		assert.Contains(t, describe, "maximum cpu usage per Container is 1, but limit is 8")
		assert.Contains(t, describe, contract.LabelPluginConfig)
		c.onlyPod("to be held back", func(p *corev1.Pod) bool { return len(p.Spec.SchedulingGates) == 1 })
	})

	c.deleteNamespace()
	c.strictNamespace()
	c.restore(c.namespace+"-again", c.namespace)

	pod := c.podAgain()
	require.Len(t, pod.Spec.InitContainers, 1)
	assert.Equal(t, corev1.PodQOSGuaranteed, pod.Status.QOSClass, "the gate leaves it as it was")
	c.sameDir(kept, c.volume(pod))
}

func (c *cell) strictNamespace() {
	c.t.Helper()

	all := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}

	here := metav1.ObjectMeta{Namespace: c.namespace, Name: "strict"}
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}},
		&corev1.LimitRange{ObjectMeta: here, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			// No limit may be above its request: whoever raises the one has to raise the other.
			{Type: corev1.LimitTypeContainer, Min: all("20m", "16Mi"), Max: all("1", "1Gi"), MaxLimitRequestRatio: all("1", "1")},
		}}},
		&corev1.ResourceQuota{ObjectMeta: here, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceRequestsCPU: resource.MustParse("50m"), corev1.ResourceRequestsMemory: resource.MustParse("64Mi"),
			corev1.ResourceLimitsCPU: resource.MustParse("50m"), corev1.ResourceLimitsMemory: resource.MustParse("64Mi"),
		}}},
	} {
		require.NoError(c.t, c.Create(c.ctx, o))
	}
}

func (c *cell) strictWorkload() {
	c.t.Helper()

	labels := map[string]string{"app": "pod"}
	// Less memory than the gate can live with.
	quantities := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("16Mi")}

	spec := lab.PodSpec(nil, []string{"scratch"})
	spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(1001)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: quantities, Limits: quantities}
	spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}

	require.NoError(c.t, c.Create(c.ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "strict"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{contract.AnnotationBackupVolumes: "*"}},
				Spec:       spec,
			},
		},
	}))
}

// pluginSettings makes the ConfigMap of the plugin's settings, until the test ends.
func (c *cell) pluginSettings(data map[string]string) {
	c.t.Helper()

	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: "estiba-settings", Labels: map[string]string{contract.LabelPluginConfig: ""}}, Data: data,
	}
	require.NoError(c.t, c.Create(c.ctx, cm))
	c.t.Cleanup(func() { assert.NoError(c.t, c.Delete(c.ctx, cm)) })
}
