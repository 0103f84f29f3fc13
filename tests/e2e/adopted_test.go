//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// startedEmpty is the file that a watchful container leaves in its volume.
const startedEmpty = "started-empty"

// watchful is the spec of a pod that leaves a file in its claim "data" if it ever starts where the file "kept" isn't.
func watchful() corev1.PodSpec {
	spec := lab.PodSpec([]string{"data"}, nil)
	spec.Containers[0].Command = []string{"sh", "-c", "test -e /data/kept || touch /data/" + startedEmpty + "; exec sleep 1000000"}

	return spec
}

// template is that of a workload's pods, whose volumes are to be backed up.
func template(app string, spec corev1.PodSpec) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}, Annotations: map[string]string{contract.AnnotationBackupVolumes: "*"}},
		Spec:       spec,
	}
}

func (c *cell) deployment(name string, n int32, spec corev1.PodSpec) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template(name, spec),
		},
	}
}

func jobSpec(app string, spec corev1.PodSpec) batchv1.JobSpec {
	spec.RestartPolicy = corev1.RestartPolicyOnFailure

	return batchv1.JobSpec{Template: template(app, spec)}
}

// readyPod waits for the only ready pod of the application.
func (c *cell) readyPod(app string) *corev1.Pod {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()

	pods, err := c.ReadyPods(ctx, c.namespace, map[string]string{"app": app}, 1)
	require.NoError(c.t, err)

	return &pods[0]
}

// backedUp fills the claim "data" through the pod, backs the namespace up and deletes it. It gives a copy of the data.
func (c *cell) backedUp(pod *corev1.Pod) (kept string) {
	c.t.Helper()

	dir := c.volume(pod)
	c.eventually("the application to have seen that its volume is empty", func(context.Context) (bool, error) {
		return os.Remove(filepath.Join(dir, startedEmpty)) == nil, nil
	})
	require.NoError(c.t, os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600))
	require.NoError(c.t, lab.FillVolume(dir, lab.Data{Files: 20, Bytes: 1 << 18, Seed: 101}))

	kept = c.keepVolume(pod)
	c.backup(c.namespace)
	c.deleteNamespace()

	return kept
}

// emptied makes a new namespace for the cell, with a PVC "data".
func (c *cell) emptied() {
	c.t.Helper()
	require.NoError(c.t, c.CreateNamespace(c.ctx, c.namespace))
	c.create(lab.Claim(c.namespace, "data", classDelete))
}

// allPods returns the names of all pods of the application.
func (c *cell) allPods(app string) []string {
	c.t.Helper()

	var pods corev1.PodList
	require.NoError(c.t, c.List(c.ctx, &pods, client.InNamespace(c.namespace), client.MatchingLabels{"app": app}))

	names := make([]string, 0, len(pods.Items))
	for i := range pods.Items {
		names = append(names, pods.Items[i].Name)
	}

	return names
}

// A Job takes the pod that waits for its data for its own, and makes no other one that would start without it.
func TestARunningJobComesBackWithItsData(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.emptied()

	spec := watchful()
	scratch := lab.PodSpec(nil, []string{"scratch"})
	spec.Volumes = append(spec.Volumes, scratch.Volumes...)
	spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, scratch.Containers[0].VolumeMounts...)
	c.create(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "import"}, Spec: jobSpec("import", spec)})

	pod := c.readyPod("import")
	halfway, err := c.VolumeDir(c.ctx, pod, "scratch")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(halfway, "halfway"), nil, 0o600))

	kept := c.backedUp(pod)

	// The second time it is a Job that was restored before.
	for _, restore := range []string{c.namespace, c.namespace + "-again"} {
		c.restore(restore, c.namespace)

		again := c.readyPod("import")
		c.sameDir(kept, c.volume(again))
		assert.Equal(t, pod.Name, again.Name, "the pod of the backup")
		assert.Len(t, c.allPods("import"), 1, "and no other one")
		assert.Equal(t, "Job", metav1.GetControllerOf(again).Kind)

		halfway, err := c.VolumeDir(c.ctx, again, "scratch")
		require.NoError(t, err)
		assert.FileExists(t, filepath.Join(halfway, "halfway"))

		if restore == c.namespace {
			c.backup(c.namespace + "-2")
			c.deleteNamespace()
		}
	}
}

// The Job of a CronJob and a Deployment share a claim. Where a pod without a gate has the claim, too, the message says
// what helps, and that does.
func TestADeploymentAndAJobOfACronJobShareAClaim(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.emptied()
	c.create(c.deployment("web", 1, watchful()))
	kept := func() string {
		web := c.readyPod("web")
		c.create(&batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "report"}, Spec: batchv1.CronJobSpec{
			Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: jobSpec("report", watchful())},
		}})
		_, err := c.Run(c.ctx, "kubectl", "create", "job", "report-now", "--from=cronjob/report", "--namespace="+c.namespace)
		require.NoError(t, err)
		c.readyPod("report")

		return c.backedUp(web)
	}()

	c.restore(c.namespace, c.namespace)
	c.sameDir(kept, c.volume(c.readyPod("web")))
	c.readyPod("report")
	assert.Len(t, c.allPods("web"), 1)
	assert.Len(t, c.allPods("report"), 1)

	t.Run("beside a pod without a gate it says what helps", func(t *testing.T) {
		c := c.within(t)
		c.deleteNamespace()
		c.emptied()
		c.create(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "intruder"}, Spec: jobSpec("intruder", lab.PodSpec([]string{"data"}, nil))})
		c.readyPod("intruder")

		restore := c.namespace + "-intruded"
		require.NoError(t, c.Restore(c.ctx, restore, c.namespace))

		_, err := c.WaitRestore(c.ctx, restore)
		require.NoError(t, err)

		job := c.jobOf(restore, "data")
		assert.Equal(t, "UngatedPod", job.Status.Reason)
		assert.Contains(t, job.Status.Message, "delete Job intruder and the CronJob that makes it, if any, and the other workloads whose pods mount the volume, and restore again")

		for _, what := range []string{"job/intruder", "job/report-now", "cronjob/report", "deployment/web"} {
			_, err := c.Run(c.ctx, "kubectl", "delete", what, "--namespace="+c.namespace, "--cascade=foreground")
			require.NoError(t, err)
		}

		c.restore(c.namespace+"-helped", c.namespace)
		c.sameDir(kept, c.volume(c.readyPod("web")))
		c.readyPod("report")
	})
}

// A pod that somebody has debugged can't be made anew as it was.
func TestADebuggedPodComesBackWithItsData(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.emptied()
	c.create(c.deployment("web", 1, watchful()))
	c.createPodWith("bare", nil, []string{"scratch"}, func(*corev1.PodSpec) {})

	web := c.readyPod("web")
	for _, pod := range []string{web.Name, "bare"} {
		_, err := c.Run(c.ctx, "kubectl", "debug", "--namespace="+c.namespace, pod, "--image="+lab.TestImage, "--", "true")
		require.NoError(t, err)
	}

	bare := c.readyPod("pod")
	require.NoError(t, os.WriteFile(filepath.Join(c.volume(bare), "mine"), nil, 0o600))

	kept := c.backedUp(web)
	c.restore(c.namespace, c.namespace)
	c.sameDir(kept, c.volume(c.readyPod("web")))
	assert.Len(t, c.allPods("web"), 1)
	assert.FileExists(t, filepath.Join(c.volume(c.readyPod("pod")), "mine"))
}

// Velero takes the owner off a pod, and a namespace may admit none without.
func TestANamespaceThatAdmitsNoPodWithoutAnOwnerGetsItsData(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.ownersOnly()
	c.emptied()

	alone := lab.Claim(c.namespace, "alone", classDelete)
	alone.Annotations = map[string]string{contract.AnnotationBackup: "true"}
	c.create(alone)
	c.create(c.deployment("web", 1, watchful()))

	// Nobody mounts it when it is backed up, nor when it is restored.
	spec := lab.PodSpec([]string{"alone"}, nil)
	c.create(c.deployment("filler", 1, spec))
	require.NoError(t, lab.FillVolume(c.volume(c.readyPod("filler")), lab.Data{Files: 5, Bytes: 1 << 14, Seed: 102}))

	keptAlone := filepath.Join(c.temp, "kept-alone")
	require.NoError(t, c.Keep(c.ctx, c.volume(c.readyPod("filler")), keptAlone))

	_, err := c.Run(c.ctx, "kubectl", "delete", "deployment/filler", "--namespace="+c.namespace, "--cascade=foreground")
	require.NoError(t, err)

	kept := c.backedUp(c.readyPod("web"))
	c.restore(c.namespace, c.namespace)

	web := c.readyPod("web")
	c.sameDir(kept, c.volume(web))
	assert.Len(t, c.allPods("web"), 1)
	assert.Equal(t, "ReplicaSet", metav1.GetControllerOf(web).Kind)

	c.create(c.deployment("filler", 1, spec))
	c.sameDir(keptAlone, c.volume(c.readyPod("filler")))

	// What stood in for the ReplicaSet keeps the pod from going with it.
	c.eventually("the ReplicaSet to be the pod's only owner", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(web), web)

		return len(web.OwnerReferences) == 1 && web.OwnerReferences[0].Kind == "ReplicaSet", err
	})

	_, err = c.Run(c.ctx, "kubectl", "delete", "deployment/web", "--namespace="+c.namespace)
	require.NoError(t, err)
	c.eventually("the pod to go with its Deployment", func(context.Context) (bool, error) {
		return len(c.allPods("web")) == 0, nil
	})
}

// ownersOnly has the cell's namespace admit pods with an owner only.
func (c *cell) ownersOnly() {
	c.t.Helper()

	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: ptr.To(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: c.namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}}},
			},
			Validations: []admissionv1.Validation{{
				Expression: "has(object.metadata.ownerReferences) && size(object.metadata.ownerReferences) > 0", Message: "pods must have an owner",
			}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: c.namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}
	c.create(policy)
	c.create(binding)
	c.t.Cleanup(func() {
		assert.NoError(c.t, c.Delete(context.Background(), binding))
		assert.NoError(c.t, c.Delete(context.Background(), policy))
	})

	require.NoError(c.t, c.CreateNamespace(c.ctx, c.namespace))
	c.eventually("the policy to count", func(ctx context.Context) (bool, error) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "probe"}, Spec: lab.PodSpec(nil, nil)}
		err := c.Create(ctx, pod, client.DryRunAll)

		// The namespace's own account comes a moment later, and is missed in other words.
		return err != nil && strings.Contains(err.Error(), "pods must have an owner"), nil
	})
	c.deleteNamespace()
}

// A replica for which there is no room keeps nobody from the data of a claim that it shares.
func TestAReplicaWithoutANodeKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.emptied()

	spec := watchful()
	spec.NodeSelector = map[string]string{corev1.LabelHostname: firstNode}
	spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, TopologyKey: corev1.LabelHostname,
	}}}}
	c.create(c.deployment("web", 2, spec))

	kept := c.backedUp(c.readyPod("web"))
	c.restore(c.namespace, c.namespace)
	c.sameDir(kept, c.volume(c.readyPod("web")))
	assert.Len(t, c.allPods("web"), 2)
}

// A claim may ask for less than it was given.
func TestAClaimComesBackAsLargeAsItsVolumeWas(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.givenVolume("5Gi", corev1.ReadWriteOnce)
	c.create(c.deployment("web", 1, watchful()))

	kept := c.backedUp(c.readyPod("web"))
	c.removeVolumes()
	c.restore(c.namespace, c.namespace)
	c.sameDir(kept, c.volume(c.readyPod("web")))

	var claim corev1.PersistentVolumeClaim
	require.NoError(t, c.Get(c.ctx, client.ObjectKey{Namespace: c.namespace, Name: "data"}, &claim))
	assert.Equal(t, "5Gi", claim.Spec.Resources.Requests.Storage().String())

	logs, err := c.Velero(c.ctx, "restore", "logs", c.namespace)
	require.NoError(t, err)
	assert.Contains(t, logs, "claim data asks for 5Gi instead of 10Mi")
}

func storageOf(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

// givenVolume makes the claim "data" of 10Mi, and by hand the volume of the size that it is bound to.
func (c *cell) givenVolume(size string, mode corev1.PersistentVolumeAccessMode) {
	c.t.Helper()

	dir := filepath.Join(lab.SharedDir(), c.namespace)
	require.NoError(c.t, os.MkdirAll(dir, 0o755))
	c.t.Cleanup(func() { assert.NoError(c.t, os.RemoveAll(dir)) })
	c.t.Cleanup(c.removeVolumes)

	modes := []corev1.PersistentVolumeAccessMode{mode}
	c.create(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: classDelete, Capacity: storageOf(size), AccessModes: modes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}},
			ClaimRef:                      &corev1.ObjectReference{Namespace: c.namespace, Name: "data"},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{firstNode}}},
			}}}},
		},
	})

	claim := lab.Claim(c.namespace, "data", classDelete)
	claim.Spec.AccessModes, claim.Spec.Resources.Requests, claim.Spec.VolumeName = modes, storageOf("10Mi"), c.namespace
	c.create(claim)
}

// What keeps a claim from its volume is said by its own events, long before the scheduler gives up.
func TestARestoreSaysAtOnceWhyItsClaimGetsNoVolume(t *testing.T) {
	t.Parallel()

	t.Run("its class is gone, and comes back", func(t *testing.T) {
		t.Parallel()

		c := open(t)
		require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
		class := c.ownClass()
		c.create(lab.Claim(c.namespace, "data", class))
		c.create(c.deployment("web", 1, watchful()))

		kept := c.backedUp(c.readyPod("web"))
		_, err := c.Run(c.ctx, "kubectl", "delete", "storageclass", class)
		require.NoError(t, err)
		require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace, "--exclude-resources", "storageclasses"))
		c.saysOfClaim(`"` + class + `" not found`)
		c.ownClass()
		c.restored(c.namespace)
		c.sameDir(kept, c.volume(c.readyPod("web")))
	})

	t.Run("its class can't make such a volume", func(t *testing.T) {
		t.Parallel()

		c := open(t)
		require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
		c.givenVolume("1Gi", corev1.ReadOnlyMany)

		spec := lab.PodSpec([]string{"data"}, nil)
		c.create(c.deployment("web", 1, spec))
		c.readyPod("web")
		c.backup(c.namespace)
		c.deleteNamespace()
		c.removeVolumes()
		require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace))
		job := c.saysOfClaim("ProvisioningFailed")
		c.cancel(&job)

		_, err := c.WaitRestore(c.ctx, c.namespace)
		require.NoError(t, err)
	})
}

// saysOfClaim waits until the restore's job says the text of its claim.
func (c *cell) saysOfClaim(text string) v1alpha1.VolumeRestore {
	c.t.Helper()

	var job v1alpha1.VolumeRestore

	c.eventually("the restore to say of its claim: "+text, func(ctx context.Context) (bool, error) {
		jobs, err := c.VolumeRestores(ctx, c.namespace)
		if err != nil || len(jobs) != 1 {
			return false, err
		}

		job = jobs[0]

		return job.Status.Reason == "ClaimPending" && strings.Contains(job.Status.Message, text), nil
	})

	return job
}
