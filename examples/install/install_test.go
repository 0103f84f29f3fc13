// Package install_test checks the manifests beside it: that they are well-formed,
// and that nobody gave a part more than it needs.
package install_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// documents returns the YAML documents of a file.
func documents(t *testing.T, file string) [][]byte {
	t.Helper()

	content, err := os.ReadFile(file)
	require.NoError(t, err)

	return bytes.Split(content, []byte("\n---\n"))
}

// kindOf returns the kind of a document.
func kindOf(t *testing.T, document []byte) string {
	t.Helper()

	var meta struct {
		Kind string `json:"kind"`
	}

	require.NoError(t, yaml.Unmarshal(document, &meta))

	return meta.Kind
}

func read[T any](t *testing.T, document []byte) T {
	t.Helper()

	var o T

	require.NoError(t, yaml.UnmarshalStrict(document, &o))

	return o
}

func TestEveryFileIsListed(t *testing.T) {
	t.Parallel()

	var k struct {
		Resources []string `json:"resources"`
		Namespace string   `json:"namespace"`
	}

	require.NoError(t, yaml.Unmarshal(documents(t, "kustomization.yaml")[0], &k))
	assert.Equal(t, "velero", k.Namespace)

	var want []string

	for _, pattern := range []string{"*.yaml", "crds/*.yaml"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)

		want = append(want, files...)
	}

	want = slices.DeleteFunc(want, func(f string) bool { return f == "kustomization.yaml" })
	assert.ElementsMatch(t, want, k.Resources)
}

func TestDaemonSet(t *testing.T) {
	t.Parallel()

	d := read[appsv1.DaemonSet](t, documents(t, "daemonset.yaml")[0])
	pod := d.Spec.Template

	assert.Equal(t, contract.ComponentNode, d.Labels[contract.LabelComponent])
	checkPod(t, pod, contract.ComponentNode, "node")

	c := pod.Spec.Containers[0]
	assert.Equal(t, []corev1.Capability{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"}, c.SecurityContext.Capabilities.Add)
	assert.Equal(t, int64(0), *pod.Spec.SecurityContext.RunAsUser)
	assert.Equal(t, "spc_t", pod.Spec.SecurityContext.SELinuxOptions.Type)
	assert.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Spec.Tolerations)
	assert.Empty(t, pod.Spec.PriorityClassName)

	mount := c.VolumeMounts[slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/host_pods" })]
	assert.Equal(t, corev1.MountPropagationHostToContainer, *mount.MountPropagation)

	for _, v := range pod.Spec.Volumes {
		if v.HostPath != nil {
			assert.Equal(t, "/var/lib/kubelet/pods", v.HostPath.Path, "no other folder of the host")
		}
	}

	env := c.Env[slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "NODE_NAME" })]
	assert.Equal(t, "spec.nodeName", env.ValueFrom.FieldRef.FieldPath)
}

func TestDeployment(t *testing.T) {
	t.Parallel()

	d := read[appsv1.Deployment](t, documents(t, "deployment.yaml")[0])
	pod := d.Spec.Template

	assert.Equal(t, contract.ComponentController, d.Labels[contract.LabelComponent])
	checkPod(t, pod, contract.ComponentController, "controller")

	assert.True(t, *pod.Spec.SecurityContext.RunAsNonRoot)
	assert.Equal(t, int64(65532), *pod.Spec.SecurityContext.RunAsUser)
	assert.Empty(t, pod.Spec.Containers[0].SecurityContext.Capabilities.Add)

	for _, v := range pod.Spec.Volumes {
		assert.Nil(t, v.HostPath)
	}
}

// checkPod checks what holds for both.
func checkPod(t *testing.T, pod corev1.PodTemplateSpec, component, verb string) {
	t.Helper()

	assert.Equal(t, component, pod.Labels[contract.LabelComponent])
	assert.Equal(t, "true", pod.Labels[contract.LabelExcludeFromBackup])
	assert.Equal(t, component, pod.Spec.ServiceAccountName)
	assert.False(t, pod.Spec.HostNetwork)
	assert.False(t, pod.Spec.HostPID)
	assert.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.Spec.SecurityContext.SeccompProfile.Type)

	require.Len(t, pod.Spec.Containers, 1)

	c := pod.Spec.Containers[0]
	s := c.SecurityContext

	assert.Equal(t, "estiba", c.Image)
	assert.Equal(t, []string{"/mover", verb}, c.Command)
	assert.False(t, *s.Privileged)
	assert.False(t, *s.AllowPrivilegeEscalation)
	assert.True(t, *s.ReadOnlyRootFilesystem)
	assert.Equal(t, []corev1.Capability{"ALL"}, s.Capabilities.Drop)
	assert.NotNil(t, c.LivenessProbe)
	assert.NotNil(t, c.ReadinessProbe)
	assert.False(t, c.Resources.Limits.Memory().IsZero(), "workers are bounded by the container's limit")

	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil {
			assert.NotNil(t, v.EmptyDir.SizeLimit, "volume %s", v.Name)
		}
	}
}

func TestRBAC(t *testing.T) {
	t.Parallel()

	var (
		roles    []rbacv1.Role
		clusters []rbacv1.ClusterRole
	)

	for _, d := range documents(t, "rbac.yaml") {
		switch kind := kindOf(t, d); kind {
		case "ServiceAccount":
			read[corev1.ServiceAccount](t, d)
		case "Role":
			roles = append(roles, read[rbacv1.Role](t, d))
		case "ClusterRole":
			clusters = append(clusters, read[rbacv1.ClusterRole](t, d))
		case "RoleBinding":
			b := read[rbacv1.RoleBinding](t, d)
			assert.Equal(t, b.Subjects[0].Name, b.RoleRef.Name)
		case "ClusterRoleBinding":
			b := read[rbacv1.ClusterRoleBinding](t, d)
			assert.Equal(t, b.Subjects[0].Name, b.RoleRef.Name)
		default:
			t.Errorf("unexpected kind %s", kind)
		}
	}

	require.Len(t, roles, 2)
	require.Len(t, clusters, 2)

	for _, r := range clusters {
		for _, rule := range r.Rules {
			checkRule(t, r.Name, rule)
			assert.NotContains(t, rule.Resources, "secrets", "secrets are read in Velero's namespace only")

			for _, resource := range rule.Resources {
				switch {
				case resource == "events":
				case r.Name == contract.ComponentController && resource == "pods":
					// It makes and removes staging pods, and takes owners off restored ones.
					assert.Subset(t, []string{"get", "list", "watch", "create", "delete", "patch"}, rule.Verbs)
				case r.Name == contract.ComponentController && resource == "persistentvolumes":
					// It puts labels and reclaim policies back.
					assert.Subset(t, []string{"get", "patch"}, rule.Verbs, "the controller makes and removes no volumes")
				case r.Name == contract.ComponentController && resource == "persistentvolumeclaims":
					// It says on them that they aren't filled.
					assert.Subset(t, []string{"get", "patch"}, rule.Verbs, "the controller makes and removes no claims")
				default:
					assert.Subset(t, []string{"get", "list", "watch"}, rule.Verbs, "%s may change no tenant's %s", r.Name, resource)
				}
			}
		}
	}

	for _, r := range roles {
		for _, rule := range r.Rules {
			checkRule(t, r.Name, rule)
			checkRole(t, r.Name, rule)
		}
	}
}

func checkRule(t *testing.T, name string, rule rbacv1.PolicyRule) {
	t.Helper()

	for _, list := range [][]string{rule.Verbs, rule.Resources, rule.APIGroups} {
		assert.NotContains(t, list, "*", "%s", name)
	}
}

func checkRole(t *testing.T, name string, rule rbacv1.PolicyRule) {
	t.Helper()

	if slices.Contains(rule.Resources, "secrets") {
		allowed := []string{"get"}
		if name == contract.ComponentController {
			// It makes the master key.
			allowed = append(allowed, "create")
		}

		if slices.Equal(rule.ResourceNames, []string{contract.MasterKeySecret}) && name == contract.ComponentController {
			// It is woken when the master key is put back.
			allowed = append(allowed, "list", "watch")
		}

		assert.Subset(t, allowed, rule.Verbs, "%s", name)
	}

	if name != contract.ComponentNode || !slices.Contains(rule.APIGroups, "estiba.dev") {
		return
	}

	for _, resource := range rule.Resources {
		if strings.HasSuffix(resource, "/status") {
			assert.Equal(t, []string{"patch"}, rule.Verbs)
		} else {
			assert.Subset(t, []string{"get", "list", "watch"}, rule.Verbs, "a daemon can make or change no job")
		}
	}
}

// The policy can't make a hash: it knows the label of a long name by its beginning and its length.
func TestTheDaemonsPolicyKnowsTheLabelsOfLongNames(t *testing.T) {
	t.Parallel()

	name := strings.Repeat("n", 57) + strings.Repeat("o", 20)
	label := jobs.LabelValue(name)
	assert.Len(t, label, 63)
	assert.True(t, strings.HasPrefix(label, name[:57]))

	policy := string(documents(t, "admission.yaml")[0])
	assert.Contains(t, policy, "size(variables.node) > 63")
	assert.Contains(t, policy, "size(oldObject.metadata.labels['estiba.dev/node']) == 63")
	assert.Contains(t, policy, "startsWith(variables.node.substring(0, 57))")
}
