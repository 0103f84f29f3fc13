//go:build e2e

package e2e

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// yieldBound is how soon a staging pod makes way.
const yieldBound = 30 * time.Second

// strict makes the cell's namespace one that admits restricted pods only, with a
// quota that demands limits, and minimums and maximums for them.
func (c *cell) strict() {
	c.t.Helper()

	require.NoError(c.t, c.Create(c.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: c.namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}))
	require.NoError(c.t, c.Create(c.ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "quota"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceLimitsCPU: resource.MustParse("1"), corev1.ResourceLimitsMemory: resource.MustParse("1Gi"),
			corev1.ResourceRequestsCPU: resource.MustParse("1"), corev1.ResourceRequestsMemory: resource.MustParse("1Gi"),
		}},
	}))
	require.NoError(c.t, c.Create(c.ctx, &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "range"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer,
			Min:  corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("48Mi"), corev1.ResourceCPU: resource.MustParse("20m")},
			Max:  corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi"), corev1.ResourceCPU: resource.MustParse("500m")},
		}}},
	}))
}

// moderate returns a pod spec that a strict namespace admits.
func moderate(spec corev1.PodSpec) corev1.PodSpec {
	limits := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("50m")}

	spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(1000)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: limits, Requests: limits}
	spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}

	return spec
}

// policy makes a volume policy that gives all volumes to Estiba.
func (c *cell) policy() string {
	c.t.Helper()

	name := c.namespace + "-policy"
	require.NoError(c.t, c.Create(c.ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: name},
		Data:       map[string]string{"policy.yaml": "version: v1\nvolumePolicies:\n- conditions: {}\n  action:\n    type: custom\n    parameters:\n      mover: estiba\n"},
	}))
	c.t.Cleanup(func() {
		_ = c.Delete(context.Background(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: name}})
	})

	return name
}

// filled makes a claim with data in it that no pod mounts any more, and returns a copy of the data.
func (c *cell) filled(claim string, d lab.Data) string {
	c.t.Helper()

	require.NoError(c.t, c.Create(c.ctx, lab.Claim(c.namespace, claim, classDelete)))

	kept := filepath.Join(c.temp, "kept-"+claim)

	c.through(claim, func(dir string) {
		require.NoError(c.t, lab.FillVolume(dir, d))
		require.NoError(c.t, c.Keep(c.ctx, dir, kept))
	})

	return kept
}

// through mounts the claim in a pod for as long as f runs.
func (c *cell) through(claim string, f func(dir string)) {
	c.t.Helper()

	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "through-" + claim, Labels: map[string]string{"through": claim}},
		Spec:       moderate(lab.PodSpec([]string{claim}, nil)),
	}
	require.NoError(c.t, c.Create(c.ctx, pod))

	pods, err := c.ReadyPods(c.ctx, c.namespace, pod.Labels, 1)
	require.NoError(c.t, err)
	dir, err := c.VolumeDir(c.ctx, &pods[0], claim)
	require.NoError(c.t, err)
	f(dir)

	require.NoError(c.t, c.Delete(c.ctx, pod))
	c.eventually("pod "+pod.Name+" to be gone", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(pod), &corev1.Pod{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

func (c *cell) eventually(what string, done func(ctx context.Context) (bool, error)) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	require.NoError(c.t, c.Wait(ctx, what, done))
}

func (c *cell) stagingPods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := c.List(ctx, &list, client.InNamespace(c.namespace), client.HasLabels{contract.LabelStaging})

	return list.Items, err
}

// unstaged waits until no staging pod is left.
func (c *cell) unstaged() {
	c.t.Helper()

	c.eventually("the staging pods to be gone", func(ctx context.Context) (bool, error) {
		pods, err := c.stagingPods(ctx)
		return len(pods) == 0, err
	})
}

func TestClaimsWithoutARunningPodAreBackedUpAndRestoredAlone(t *testing.T) {
	c := open(t)
	c.strict()

	labels := map[string]string{"app": "db"}
	require.NoError(t, c.Create(c.ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: moderate(lab.PodSpec([]string{"idle"}, nil))},
		},
	}))

	kept := map[string]string{
		"idle": c.filled("idle", lab.Data{Files: 200, Bytes: 5 << 20, Seed: 11}),
		"done": c.filled("done", lab.Data{Files: 20, Bytes: 1 << 20, Seed: 12}),
	}

	// A pod that has completed, of a claim of its own.
	job := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "once"}, Spec: moderate(lab.PodSpec([]string{"done"}, nil))}
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Spec.Containers[0].Command = []string{"true"}
	require.NoError(t, c.Create(c.ctx, job))
	c.eventually("pod once to complete", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(job), job)
		return job.Status.Phase == corev1.PodSucceeded, err
	})

	c.backup(c.namespace, "--resource-policies-configmap", c.policy())
	c.unstaged()

	for _, vb := range c.completed(c.namespace, 2) {
		assert.Empty(t, vb.Spec.Volume.Pod.Name)
		assert.Equal(t, contract.StagingPodName(vb.Name), vb.Status.Pod.Name)
	}

	c.deleteNamespace()
	c.strict()
	c.restore(c.namespace, c.namespace, "--include-resources", "persistentvolumeclaims,persistentvolumes")
	c.unstaged()

	restores, err := c.VolumeRestores(c.ctx, c.namespace)
	require.NoError(t, err)
	require.Len(t, restores, 2)

	for claim, want := range kept {
		c.through(claim, func(dir string) { c.sameDir(want, dir) })
	}
}

func TestAStagingPodMakesWayForARealOne(t *testing.T) {
	c := open(t)
	c.strict()
	kept := c.filled("data", lab.Data{Files: 400, Bytes: 24 << 20, Seed: 13})

	lift := c.limit(slow)

	_, err := c.Velero(c.ctx, "backup", "create", c.namespace, "--include-namespaces", c.namespace,
		"--snapshot-volumes=false", "--resource-policies-configmap", c.policy())
	require.NoError(t, err)
	c.stagedRun()

	began := time.Now()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "late", Labels: map[string]string{"app": "late"}},
		Spec:       moderate(lab.PodSpec([]string{"data"}, nil)),
	}
	require.NoError(t, c.Create(c.ctx, pod))
	c.unstaged()
	assert.Less(t, time.Since(began), yieldBound)
	lift()

	b, err := c.WaitBackup(c.ctx, c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)

	done := c.completed(c.namespace, 1)
	assert.Equal(t, "late", done[0].Status.Pod.Name)
	assert.EqualValues(t, 1, done[0].Status.Attempts, "to make way is no attempt")
	c.deleteNamespace()
	c.strict()
	c.restore(c.namespace, c.namespace)
	c.unstaged()

	// The pod came too late to be in the backup.
	c.through("data", func(dir string) { c.sameDir(kept, dir) })
}

// stagedRun waits until the backup's only volume is read through a staging pod.
func (c *cell) stagedRun() v1alpha1.VolumeBackup {
	c.t.Helper()

	var job v1alpha1.VolumeBackup

	c.eventually("the volume to be read through a staging pod", func(ctx context.Context) (bool, error) {
		jobs, err := c.VolumeBackups(ctx, c.namespace)
		if len(jobs) == 1 {
			job = jobs[0]
		}

		return job.Status.Pod != nil && job.Status.Reason == "Running", err
	})

	return job
}

func TestNoStagingPodIsLeftWhenTheControllerDies(t *testing.T) {
	c := open(t)
	c.strict()
	c.filled("data", lab.Data{Files: 20, Bytes: 1 << 20, Seed: 14})

	_, err := c.Velero(c.ctx, "backup", "create", c.namespace, "--include-namespaces", c.namespace,
		"--snapshot-volumes=false", "--resource-policies-configmap", c.policy())
	require.NoError(t, err)
	c.eventually("a staging pod", func(ctx context.Context) (bool, error) {
		pods, err := c.stagingPods(ctx)
		return len(pods) == 1, err
	})

	require.NoError(t, c.DeleteAllOf(c.ctx, &corev1.Pod{}, client.InNamespace(c.Namespace),
		client.MatchingLabels{contract.LabelComponent: contract.ComponentController}, client.GracePeriodSeconds(0)))

	b, err := c.WaitBackup(c.ctx, c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)
	c.completed(c.namespace, 1)
	c.unstaged()

	// One whose job is gone is found, too.
	orphan := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.namespace, Name: contract.StagingPodName("vb-0123456789012345678901234567890123456789"),
			Labels: map[string]string{contract.LabelStaging: "vb-0123456789012345678901234567890123456789", contract.LabelInstall: c.Namespace},
		},
		Spec: moderate(lab.PodSpec(nil, nil)),
	}
	require.NoError(t, c.Create(c.ctx, orphan))
	c.unstaged()
}
