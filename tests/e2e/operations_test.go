//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// Velero loses an operation now and then where it backs up several items at a time, and ends the Backup without it. The
// record of the volume is in the backup, so that its job goes on to its end.
func TestAVolumeWhoseOperationVeleroLostIsFinished(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	require.NoError(t, c.Create(c.ctx, lab.Claim(c.namespace, "data", classDelete)))
	c.createPod("web", []string{"data"}, nil)

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, 1)
	require.NoError(t, err)

	dir, err := c.VolumeDir(c.ctx, &pods[0], "data")
	require.NoError(t, err)
	require.NoError(t, lab.FillVolume(dir, lab.Data{Files: 5, Bytes: 1 << 14, Seed: 41}))
	c.backup(c.namespace)

	good := c.completed(c.namespace, 1)[0]
	owner := c.owner(&velerov1.Backup{
		Spec:   velerov1.BackupSpec{StorageLocation: "default", IncludedNamespaces: []string{c.namespace}},
		Status: velerov1.BackupStatus{Phase: velerov1.BackupPhaseCompleted},
	})

	// The job can't begin until its staging pod may be made.
	require.NoError(t, c.Delete(c.ctx, &pods[0]))
	require.NoError(t, c.Wait(c.ctx, "the pod to be gone", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(&pods[0]), &corev1.Pod{})

		return err != nil, client.IgnoreNotFound(err)
	}))

	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "no-pods"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}
	require.NoError(t, c.Create(c.ctx, quota))
	require.NoError(t, c.Wait(c.ctx, "the quota to be in force", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(quota), quota)

		return len(quota.Status.Hard) > 0, err
	}))

	job := &v1alpha1.VolumeBackup{Spec: good.Spec}
	job.Namespace, job.Name = c.Namespace, c.namespace
	job.Spec.Backup = v1alpha1.OwnerReference{Name: owner.Name, UID: owner.UID}
	job.Spec.Volume.Pod, job.Spec.Volume.Name = v1alpha1.PodReference{}, ""
	job.Labels = map[string]string{contract.LabelBackupName: owner.Name, contract.LabelBackupUID: string(owner.UID)}
	c.create(job)

	require.NoError(t, c.Wait(c.ctx, "the loss to be said", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(job), job)

		return meta.IsStatusConditionTrue(job.Status.Conditions, "OperationLost"), err
	}))
	require.NoError(t, c.Wait(c.ctx, "an event on the Backup", func(ctx context.Context) (bool, error) {
		var events corev1.EventList

		err := c.List(ctx, &events, client.InNamespace(c.Namespace), client.MatchingFields{"reason": "OperationLost", "involvedObject.name": owner.Name})

		return len(events.Items) > 0, err
	}))
	require.NoError(t, c.Delete(c.ctx, quota))
	require.NoError(t, c.Wait(c.ctx, "the job to end", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(job), job)

		return job.Status.Phase.Terminal(), err
	}))
	assert.Equal(t, v1alpha1.PhaseCompleted, job.Status.Phase, job.Status.Message)
	assert.False(t, job.Spec.Cancel)
	assert.Contains(t, c.snapshots(), job.Name)
}

// Velero runs no command in a pod that isn't in the backup.
func TestAPodThatIsNotInTheBackupFreezesNothing(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	require.NoError(t, c.Create(c.ctx, lab.Claim(c.namespace, "data", classDelete)))
	c.createQuiesced("web", []string{"data"}, "notes")
	c.backup(c.namespace, "--include-resources", "persistentvolumeclaims,persistentvolumes")

	job := c.completed(c.namespace, 1)[0]
	assert.Equal(t, v1alpha1.BackupOptions{}, job.Spec.Options)
	assert.Empty(t, c.noted("web"))

	c.backup(c.namespace + "-all")

	job = c.completed(c.namespace+"-all", 1)[0]
	assert.True(t, job.Spec.Options.Frozen)
	assert.ElementsMatch(t, []string{"frozen", "thawed"}, c.noted("web"))
}

// Velero runs the commands of pods that it is to back up in an order before it comes to the first of them.
func TestPodsInAnOrderAreMovedTogether(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.createQuiesced("db-0", nil, "data", "notes")
	c.createQuiesced("db-1", nil, "data", "notes")
	c.backup(c.namespace, "--ordered-resources", "pods="+c.namespace+"/db-1,"+c.namespace+"/db-0")

	logs, err := c.Velero(c.ctx, "backup", "logs", c.namespace)
	require.NoError(t, err)
	assert.Contains(t, logs, "pod "+c.namespace+"/db-0 is quiesced, too")

	early, waits := strings.Index(logs, "is quiesced, too"), strings.Index(logs, "a post hook follows")
	assert.Less(t, early, waits, "both are asked for before the first waits")

	for _, job := range c.completed(c.namespace, 2) {
		assert.True(t, job.Spec.Options.Frozen)
	}

	for _, pod := range []string{"db-0", "db-1"} {
		assert.ElementsMatch(t, []string{"frozen", "thawed"}, c.noted(pod))
	}
}

// Nobody asks for the deletion of a snapshot a second time, once its Backup is gone.
func TestASnapshotIsDeletedThoughTheAPIServerRefusesForAWhile(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.createPod("web", nil, []string{"cache"})

	_, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, 1)
	require.NoError(t, err)
	c.backup(c.namespace)
	require.Len(t, c.snapshots(), 1)

	allow := c.refuseDeletions()

	_, err = c.Velero(c.ctx, "backup", "delete", c.namespace, "--confirm")
	require.NoError(t, err)
	require.NoError(t, c.Wait(c.ctx, "Velero to be at the deletion", func(ctx context.Context) (bool, error) {
		var b velerov1.Backup
		err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.namespace}, &b)

		return err != nil || b.Status.Phase == velerov1.BackupPhaseDeleting, client.IgnoreNotFound(err)
	}))
	allow()
	c.waitGone(c.namespace)
	assert.Empty(t, c.snapshots())
}

// refuseDeletions has the API server refuse the SnapshotDeletions of the cell's backup, until the function is called.
func (c *cell) refuseDeletions() (allow func()) {
	c.t.Helper()

	fail := admissionv1.Fail
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: &fail,
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{v1alpha1.GroupName}, APIVersions: []string{"*"}, Resources: []string{"snapshotdeletions"}},
		}}}},
		Validations: []admissionv1.Validation{{Expression: "object.spec.snapshot.backup.name != '" + c.namespace + "'", Message: "not now"}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: c.namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	c.create(policy)
	c.create(binding)

	probe := &v1alpha1.SnapshotDeletion{Spec: v1alpha1.SnapshotDeletionSpec{
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: c.namespace, ID: strings.Repeat("a", 26)},
		Snapshot:   v1alpha1.SnapshotReference{Job: "probe", Backup: v1alpha1.OwnerReference{Name: c.namespace, UID: "probe"}},
	}}
	probe.Namespace, probe.Name = c.Namespace, c.namespace
	require.NoError(c.t, c.Wait(c.ctx, "the API server to refuse", func(ctx context.Context) (bool, error) {
		return c.Create(ctx, probe.DeepCopy(), client.DryRunAll) != nil, nil
	}))

	return func() {
		c.t.Helper()
		require.NoError(c.t, c.Delete(c.ctx, binding))
	}
}

// createQuiesced makes a pod whose commands leave notes in its volume "notes", which is not backed up.
func (c *cell) createQuiesced(name string, claims []string, emptyDirs ...string) {
	c.t.Helper()

	pod := &corev1.Pod{Spec: lab.PodSpec(claims, emptyDirs)}
	pod.Namespace, pod.Name = c.namespace, name
	pod.Labels = map[string]string{"app": name}
	pod.Annotations = map[string]string{contract.AnnotationBackupVolumes: "data"}

	for when, note := range map[string]string{"pre": "frozen", "post": "thawed"} {
		command, err := json.Marshal([]string{"touch", "/notes/" + note})
		require.NoError(c.t, err)

		pod.Annotations[when+".hook.backup.velero.io/command"] = string(command)
	}

	require.NoError(c.t, c.Create(c.ctx, pod))

	_, err := c.ReadyPods(c.ctx, c.namespace, pod.Labels, 1)
	require.NoError(c.t, err)
}

// noted returns the notes of a pod's commands.
func (c *cell) noted(pod string) []string {
	c.t.Helper()

	out, err := c.Run(c.ctx, "kubectl", "exec", "--namespace", c.namespace, pod, "--container", "app", "--", "ls", "/notes")
	require.NoError(c.t, err)

	return strings.Fields(out)
}
