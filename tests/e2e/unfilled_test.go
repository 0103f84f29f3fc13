//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

const claimsAlone = "persistentvolumeclaims,persistentvolumes"

// stalled makes the cell's namespace one in which no pod can be made, so that a restore of claims alone goes on
// until the function is called.
func (c *cell) stalled() (lift func()) {
	c.t.Helper()

	require.NoError(c.t, c.CreateNamespace(c.ctx, c.namespace))

	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "no-pods"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}
	c.create(quota)

	return func() {
		c.t.Helper()
		require.NoError(c.t, c.Delete(c.ctx, quota))
	}
}

// unfilled returns the name of the VolumeRestore by which the claim is marked.
func (c *cell) unfilled(ctx context.Context, claim string) (string, error) {
	var pvc corev1.PersistentVolumeClaim
	err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: claim}, &pvc)

	return pvc.Labels[contract.LabelUnfilled], err
}

// marked waits until the claim bears the mark of a job that waits for the reason, and returns its name.
func (c *cell) marked(claim, restore, reason string) string {
	c.t.Helper()

	var job v1alpha1.VolumeRestore

	c.eventually("claim "+claim+" to be marked, and "+reason, func(ctx context.Context) (bool, error) {
		name, err := c.unfilled(ctx, claim)
		if err != nil || name == "" {
			return false, err
		}

		jobs, err := c.VolumeRestores(ctx, restore)

		for _, j := range jobs {
			if j.Spec.Target.Claim.Name == claim {
				job = j
			}
		}

		return job.Status.Reason == reason, err
	})

	return job.Name
}

// refusedBackup backs the namespace up, which must name the restore as the cause and take nothing.
func (c *cell) refusedBackup(name, policy string, says ...string) {
	c.t.Helper()

	b, err := c.Backup(c.ctx, name, "--include-namespaces", c.namespace, "--resource-policies-configmap", policy)
	require.NoError(c.t, err)
	c.requireBackup(b, velerov1.BackupPhasePartiallyFailed)

	troubles := c.Troubles(c.ctx, "backup", name)
	for _, text := range append(says, "RestoreNotDone") {
		assert.Contains(c.t, troubles, text)
	}

	jobs, err := c.VolumeBackups(c.ctx, name)
	require.NoError(c.t, err)
	assert.Empty(c.t, jobs)
}

// refusedPods waits until the controller of the name has been refused a pod.
func (c *cell) refusedPods(controller, says string) {
	c.t.Helper()

	c.eventually(controller+" to be refused its pod", func(ctx context.Context) (bool, error) {
		var events corev1.EventList
		err := c.List(ctx, &events, client.InNamespace(c.namespace))

		for _, e := range events.Items {
			if e.InvolvedObject.Name == controller && e.Reason == "FailedCreate" && strings.Contains(e.Message, says) {
				c.t.Logf("%s: %s", controller, e.Message)
				return true, nil
			}
		}

		return false, err
	})
}

// consumers makes a ReplicaSet and a Job whose pods mount the claim.
func (c *cell) consumers(claim string) {
	c.t.Helper()

	labels := map[string]string{"app": "web"}
	c.create(&appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "web"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: lab.PodSpec([]string{claim}, nil)},
		},
	})

	once := lab.PodSpec([]string{claim}, nil)
	once.RestartPolicy = corev1.RestartPolicyNever
	once.Containers[0].Command = []string{"test", "-e", "/" + claim + "/big"}
	c.create(&batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "once"},
		Spec:       batchv1.JobSpec{BackoffLimit: ptr.To(int32(0)), Template: corev1.PodTemplateSpec{Spec: once}},
	})
}

// consumed waits until both have run, and compares what they found.
func (c *cell) consumed(claim, want string) {
	c.t.Helper()

	filled := time.Now()

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "web"}, 1)
	require.NoError(c.t, err)
	c.t.Logf("the ReplicaSet's pod is ready %s after its claim was filled", time.Since(filled).Round(time.Second))

	dir, err := c.VolumeDir(c.ctx, &pods[0], claim)
	require.NoError(c.t, err)
	c.sameDir(want, dir)

	c.eventually("the Job to have found its data", func(ctx context.Context) (bool, error) {
		var job batchv1.Job
		err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: "once"}, &job)
		require.Zero(c.t, job.Status.Failed, "it started on a volume without its data")

		return job.Status.Succeeded == 1, err
	})
	c.t.Logf("the Job has succeeded %s after its claim was filled", time.Since(filled).Round(time.Second))
}

// Nobody takes a claim for whole that a restore has not filled: no schedule that fires in between, no controller,
// and no other restore.
func TestNothingUsesAClaimBeforeItsRestoreHasFilledIt(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))

	kept := c.filled("data", lab.Data{Files: 100, Bytes: 2 << 20, Seed: 91})
	require.NoError(t, lab.FillVolume(c.sharedVolume("first"), lab.Data{Files: 20, Bytes: 1 << 20, Seed: 92}))
	c.create(sharedClaim(c.namespace))
	c.eventually("claim shared to be bound", func(ctx context.Context) (bool, error) {
		var claim corev1.PersistentVolumeClaim
		err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: "shared"}, &claim)

		return claim.Status.Phase == corev1.ClaimBound, err
	})

	policy := c.policy()
	c.backup(c.namespace, "--resource-policies-configmap", policy)
	c.completed(c.namespace, 2)
	c.deleteNamespace()
	c.sharedVolume("again")

	lift := c.stalled()
	require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace, "--include-resources", claimsAlone))

	filler := c.marked("data", c.namespace, "StagingRefused")
	c.marked("shared", c.namespace, "StagingRefused")

	c.consumers("data")

	for _, controller := range []string{"web", "once"} {
		c.refusedPods(controller, "claim data lacks its data until "+filler+" has Completed")
	}

	require.NoError(t, c.Restore(c.ctx, c.namespace+"-2", c.namespace, "--include-resources", claimsAlone))
	assert.NotEqual(t, filler, c.marked("data", c.namespace+"-2", "ClaimHeld"))
	c.marked("shared", c.namespace+"-2", "ClaimHeld")

	c.refusedBackup(c.namespace+"-between", policy, "VolumeRestore "+filler)

	lift()
	c.restored(c.namespace)
	c.consumed("data", kept)

	r, err := c.WaitRestore(c.ctx, c.namespace+"-2")
	require.NoError(t, err)
	assert.Equal(t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase, "what the first one has filled is refused to the second")

	for _, claim := range []string{"data", "shared"} {
		c.eventually("the mark of claim "+claim+" to be gone", func(ctx context.Context) (bool, error) {
			name, err := c.unfilled(ctx, claim)
			return name == "", err
		})
	}

	c.backup(c.namespace+"-after", "--resource-policies-configmap", policy)
	c.completed(c.namespace+"-after", 2)
}

// What a restore has left unfilled stays so, whatever has become of the restore, until another one fills it or somebody
// takes it as it is.
func TestAClaimStaysUnfilledWhenItsRestoreIsGone(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))

	kept := c.filled("data", lab.Data{Files: 50, Bytes: 1 << 20, Seed: 93})
	policy := c.policy()
	c.backup(c.namespace, "--resource-policies-configmap", policy)
	c.deleteNamespace()

	lift := c.stalled()
	require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace, "--include-resources", claimsAlone))

	filler := c.marked("data", c.namespace, "StagingRefused")
	job := &v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: filler}}
	require.NoError(t, c.Patch(c.ctx, job, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true}}`))))

	_, err := c.WaitRestore(c.ctx, c.namespace)
	require.NoError(t, err)
	lift()
	c.refusedBackup(c.namespace+"-ended", policy, "VolumeRestore "+filler, "Canceled")

	// A restore of such a backup says so, though no pod asks for the data.
	c.restore(c.namespace+"-none", c.namespace+"-ended", "--include-resources", claimsAlone)

	describe, err := c.Velero(c.ctx, "restore", "describe", c.namespace+"-none", "--details")
	require.NoError(t, err)
	assert.Contains(t, describe, "volume-data-not-in-backup.estiba.dev/namespaces/"+c.namespace+"/claim-data")

	require.NoError(t, c.Delete(c.ctx, job))
	c.refusedBackup(c.namespace+"-gone", policy, "VolumeRestore "+filler, "is gone")

	err = c.Create(c.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "bare"}, Spec: lab.PodSpec([]string{"data"}, nil),
	})
	require.ErrorContains(t, err, "claim data lacks its data until "+filler)

	// One that a restore holds back may be made.
	held := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "held"}, Spec: lab.PodSpec([]string{"data"}, nil)}
	held.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: contract.SchedulingGate}}
	c.create(held)
	require.NoError(t, c.Delete(c.ctx, held))

	c.restore(c.namespace+"-2", c.namespace, "--include-resources", claimsAlone)
	c.through("data", func(dir string) { c.sameDir(kept, dir) })

	name, err := c.unfilled(c.ctx, "data")
	require.NoError(t, err)
	assert.Empty(t, name)
	c.backup(c.namespace+"-after", "--resource-policies-configmap", policy)

	// It is no carrier for a backup, of a claim without a mark either.
	held.ResourceVersion, held.UID = "", ""
	c.create(held)
	c.refusedBackup(c.namespace+"-held", policy, "scheduling gate")
}
