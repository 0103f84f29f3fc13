package cluster_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// stagingWorld is a cluster with a bound claim that no pod mounts, and a job for it.
func stagingWorld(t *testing.T, more ...client.Object) (*world, *v1alpha1.VolumeBackup) {
	t.Helper()

	owner := &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "b", UID: "buid"}, Status: velerov1.BackupStatus{Phase: velerov1.BackupPhaseWaitingForPluginOperations}}
	job := jobs.NewBackup(veleroNS, "", v1alpha1.VolumeBackupSpec{
		Backup: v1alpha1.OwnerReference{Name: "b", UID: "buid"},
		Volume: v1alpha1.VolumeReference{
			Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app",
			Claim: &v1alpha1.ClaimReference{Name: "data", UID: "cuid", PersistentVolume: "pv"},
		},
	})
	job.CreationTimestamp = metav1.NewTime(start)

	daemons := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "estiba-node", Labels: map[string]string{contract.LabelComponent: contract.ComponentNode}},
		Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"kubernetes.io/os": "linux"},
			Containers:   []corev1.Container{{Name: "mover", Image: "registry/estiba:1", ImagePullPolicy: corev1.PullIfNotPresent}},
		}}},
	}

	objects := append([]client.Object{owner, job, daemons, lease("n1", start), claimOfApp(), volumeOfApp()}, more...)

	return newWorld(t, objects...), job
}

func claimOfApp() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "data", UID: "cuid"},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv", AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
}

func volumeOfApp() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv"},
		Spec:       corev1.PersistentVolumeSpec{NodeAffinity: &corev1.VolumeNodeAffinity{}},
	}
}

// realPod mounts the claim "data".
func realPod(node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "web-0", UID: "webuid"},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "app", VolumeMounts: []corev1.VolumeMount{{Name: "d", MountPath: "/d"}}}},
			Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
			}}},
		},
		Status: corev1.PodStatus{Phase: phase},
	}
}

// stage returns the staging pod of a job, or nil.
func (w *world) stage(t *testing.T, job string) *corev1.Pod {
	t.Helper()

	var pod corev1.Pod

	err := w.client.Get(t.Context(), types.NamespacedName{Namespace: "app", Name: contract.StagingPodName(job)}, &pod)
	if apierrors.IsNotFound(err) {
		return nil
	}

	require.NoError(t, err)

	return &pod
}

// start has the staging pod run on n1.
func (w *world) start(t *testing.T, job string) {
	t.Helper()

	pod := w.stage(t, job)
	require.NotNil(t, pod)

	pod.Spec.NodeName, pod.UID, pod.CreationTimestamp = "n1", "stageuid", metav1.NewTime(start)
	require.NoError(t, w.client.Update(t.Context(), pod))

	pod.Status.Phase = corev1.PodRunning
	require.NoError(t, w.client.Status().Update(t.Context(), pod))
}

func TestAClaimIsBackedUpThroughAStagingPod(t *testing.T) {
	t.Parallel()

	w, job := stagingWorld(t)

	got, _ := w.backup(t, job.Name)
	assert.Equal(t, state.ReasonStaging, got.Status.Reason, got.Status.Message)

	pod := w.stage(t, job.Name)
	require.NotNil(t, pod)
	assert.Equal(t, job.Name, target.StagedFor(pod))

	w.start(t, job.Name)

	got, _ = w.backup(t, job.Name)
	assert.Equal(t, "n1", got.Labels[contract.LabelNode])
	assert.Equal(t, &v1alpha1.PodReference{Name: pod.Name, UID: "stageuid"}, got.Status.Pod)

	got.Status.Phase = v1alpha1.PhaseCompleted
	require.NoError(t, w.client.Status().Update(t.Context(), got))
	w.backup(t, job.Name)
	assert.Nil(t, w.stage(t, job.Name), "the staging pod goes when the job has ended")
}

func TestTheStagingPod(t *testing.T) {
	t.Parallel()

	quantities := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}

	w, job := stagingWorld(t, &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "r"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{Type: corev1.LimitTypeContainer, Min: quantities("5m", "64Mi")},
			{Type: corev1.LimitTypePod, Max: quantities("8m", "1Gi")},
			{Type: corev1.LimitTypePersistentVolumeClaim, Min: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}},
	})
	w.backup(t, job.Name)

	pod := w.stage(t, job.Name)
	require.NotNil(t, pod)

	spec := pod.Spec
	require.Len(t, spec.Containers, 1)

	c := spec.Containers[0]
	assert.Equal(t, "registry/estiba:1", c.Image)
	assert.Equal(t, []string{"/restore-wait", "--hold"}, c.Command)
	assert.Equal(t, c.Resources.Requests, c.Resources.Limits)
	assert.Equal(t, "64Mi", c.Resources.Limits.Memory().String(), "raised to the minimum")
	assert.Equal(t, "8m", c.Resources.Limits.Cpu().String(), "lowered to the maximum")
	assert.Equal(t, "16Mi", c.Resources.Limits.StorageEphemeral().String())
	assert.False(t, *spec.AutomountServiceAccountToken)
	assert.Positive(t, *spec.ActiveDeadlineSeconds)
	assert.Equal(t, map[string]string{"kubernetes.io/os": "linux"}, spec.NodeSelector)
	assert.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}, spec.Tolerations)
	assert.Equal(t, []metav1.OwnerReference{{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: "data", UID: "cuid"}}, pod.OwnerReferences,
		"a namespace may admit no pod without an owner, and the claim outlives the pod")
	assert.Equal(t, "true", pod.Labels[contract.LabelExcludeFromBackup])
	assert.True(t, spec.Volumes[0].PersistentVolumeClaim.ReadOnly)

	// The restricted Pod Security Standard.
	assert.True(t, *spec.SecurityContext.RunAsNonRoot)
	assert.Nil(t, spec.SecurityContext.FSGroup, "the kubelet would change the files' owners")
	assert.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, spec.SecurityContext.SeccompProfile.Type)
	assert.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	assert.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
}

func TestAStagingPodMakesWayAndTheRealPodIsUsed(t *testing.T) {
	t.Parallel()

	w, job := stagingWorld(t)
	w.backup(t, job.Name)
	w.start(t, job.Name)
	w.backup(t, job.Name)

	got, _ := w.backup(t, job.Name)
	got.Status.Phase = v1alpha1.PhaseInProgress
	require.NoError(t, w.client.Status().Update(t.Context(), got))
	assert.NotNil(t, w.stage(t, job.Name))

	real := realPod("", corev1.PodPending)
	require.NoError(t, w.client.Create(t.Context(), real))

	got, _ = w.backup(t, job.Name)
	assert.Empty(t, got.Labels[contract.LabelNode], "the daemon lets go")
	assert.Nil(t, got.Status.Pod)
	assert.Equal(t, state.ReasonClaimWanted, got.Status.Reason)
	assert.Equal(t, v1alpha1.PhaseInProgress, got.Status.Phase)
	assert.Nil(t, w.stage(t, job.Name))

	got, _ = w.backup(t, job.Name)
	assert.Equal(t, state.ReasonClaimWanted, got.Status.Reason)
	assert.Nil(t, w.stage(t, job.Name), "none is made while the pod wants the claim")

	real.Spec.NodeName = "n1"
	require.NoError(t, w.client.Update(t.Context(), real))

	real.Status.Phase = corev1.PodRunning
	require.NoError(t, w.client.Status().Update(t.Context(), real))

	got, _ = w.backup(t, job.Name)
	assert.Equal(t, "n1", got.Labels[contract.LabelNode])
	assert.Equal(t, &v1alpha1.PodReference{Name: "web-0", UID: "webuid"}, got.Status.Pod)
}

func TestAStagingPodThatIsRefused(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		err   error
		phase v1alpha1.Phase
	}{
		"by the admission ends the job": {apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", assert.AnError), v1alpha1.PhaseFailed},
		"by a quota is tried again": {
			&apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonForbidden, Message: "pods is forbidden: exceeded quota: q"}}, v1alpha1.PhaseAccepted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w, job := stagingWorld(t)
			inner, ok := w.client.(client.WithWatch)
			require.True(t, ok)

			w.Client = interceptor.NewClient(inner, interceptor.Funcs{
				Create: func(ctx context.Context, cl client.WithWatch, o client.Object, opts ...client.CreateOption) error {
					if _, isPod := o.(*corev1.Pod); isPod {
						return c.err
					}

					return cl.Create(ctx, o, opts...)
				},
			})

			got, _ := w.backup(t, job.Name)
			assert.Equal(t, state.ReasonStagingRefused, got.Status.Reason)
			assert.Equal(t, c.phase, got.Status.Phase)
			assert.Contains(t, got.Status.Message, c.err.Error())
		})
	}
}

func TestANameThatIsTakenEndsTheJob(t *testing.T) {
	t.Parallel()

	w, job := stagingWorld(t)
	squatter := realPod("n1", corev1.PodRunning)
	squatter.Name, squatter.Spec.Volumes = contract.StagingPodName(job.Name), nil
	require.NoError(t, w.client.Create(t.Context(), squatter))

	got, _ := w.backup(t, job.Name)
	assert.Equal(t, state.ReasonStagingNameTaken, got.Status.Reason)
	assert.NotNil(t, w.stage(t, job.Name), "what isn't ours is left alone")
}

func TestSweepRemovesWhatNobodyNeeds(t *testing.T) {
	t.Parallel()

	pod := func(job, install string, mutate ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "app", Name: contract.StagingPodName(job), UID: types.UID(job),
			Labels: map[string]string{contract.LabelStaging: job, contract.LabelInstall: install},
		}}
		for _, m := range mutate {
			m(p)
		}

		return p
	}

	w, job := stagingWorld(t)
	ended := job.DeepCopy()
	ended.Name, ended.ResourceVersion, ended.Status.Phase = "vb-ended", "", v1alpha1.PhaseFailed

	restore := jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{Target: v1alpha1.VolumeReference{Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "data"}}})
	for _, o := range []client.Object{
		ended, restore, pod(job.Name, veleroNS), pod("vb-ended", veleroNS), pod("vb-gone", veleroNS), pod(restore.Name, veleroNS), pod("vr-gone", veleroNS),
		pod("vb-other-install", "elsewhere"), pod("vb-misnamed", veleroNS, func(p *corev1.Pod) { p.Name = "mine" }),
	} {
		require.NoError(t, w.client.Create(t.Context(), o))
	}

	require.NoError(t, w.Sweep(t.Context()))

	var list corev1.PodList
	require.NoError(t, w.client.List(t.Context(), &list))

	var names []string
	for _, p := range list.Items {
		names = append(names, p.Name)
	}

	assert.ElementsMatch(t, []string{
		contract.StagingPodName(job.Name), contract.StagingPodName(restore.Name), contract.StagingPodName("vb-other-install"), "mine",
	}, names)
}

func TestAClaimIsRestoredThroughAStagingPod(t *testing.T) {
	t.Parallel()

	owner := &velerov1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "r", UID: "ruid"}, Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseInProgress}}
	job := jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{
		Restore: v1alpha1.OwnerReference{Name: "r", UID: "ruid"},
		Target:  v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "data"}},
	})
	w, _ := stagingWorld(t, owner, job)

	reconcile := func() *v1alpha1.VolumeRestore {
		t.Helper()

		_, err := w.ReconcileRestore(t.Context(), req(job.Name))
		require.NoError(t, err)

		var got v1alpha1.VolumeRestore
		require.NoError(t, w.client.Get(t.Context(), req(job.Name).NamespacedName, &got))

		return &got
	}

	assert.Equal(t, state.ReasonWaitingForPods, reconcile().Status.Reason)
	assert.Nil(t, w.stage(t, job.Name), "its pod may be about to be restored")

	owner.ResourceVersion = ""
	require.NoError(t, w.client.Get(t.Context(), req("r").NamespacedName, owner))
	owner.Status.Phase = velerov1.RestorePhaseWaitingForPluginOperations
	require.NoError(t, w.client.Update(t.Context(), owner))

	assert.Equal(t, state.ReasonStaging, reconcile().Status.Reason)

	pod := w.stage(t, job.Name)
	require.NotNil(t, pod)
	assert.False(t, pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly, "the daemon writes through the kubelet's mount")
	assert.True(t, pod.Spec.Containers[0].VolumeMounts[0].ReadOnly, "the pod itself doesn't")

	w.start(t, job.Name)
	got := reconcile()
	require.NotNil(t, got.Status.Pod, "%s: %s", got.Status.Reason, got.Status.Message)
	assert.Equal(t, pod.Name, got.Status.Pod.Name)
	assert.Equal(t, "n1", got.Labels[contract.LabelNode])

	got.Status.Phase = v1alpha1.PhaseCompleted
	require.NoError(t, w.client.Status().Update(t.Context(), got))
	reconcile()
	assert.Nil(t, w.stage(t, job.Name))
}

func TestStagingPodsAreFewAtATime(t *testing.T) {
	t.Parallel()

	another := jobs.NewBackup(veleroNS, "", v1alpha1.VolumeBackupSpec{
		Backup: v1alpha1.OwnerReference{Name: "b", UID: "buid"},
		Volume: v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "other", UID: "ouid"}},
	})

	of := func(job, namespace string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: contract.StagingPodName(job), Labels: map[string]string{contract.LabelStaging: job, contract.LabelInstall: veleroNS},
		}}
	}

	for name, c := range map[string]struct {
		pods  []client.Object
		phase v1alpha1.Phase
		waits bool
	}{
		"another live job has as many as may be":       {pods: []client.Object{of(another.Name, "app")}, waits: true},
		"another job has ended":                        {pods: []client.Object{of(another.Name, "app")}, phase: v1alpha1.PhaseFailed},
		"pods of another namespace only bear its name": {pods: []client.Object{of(another.Name, "tenant"), of("vb-none", "tenant")}},
		"there are none":                               {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			live := another.DeepCopy()
			live.Status.Phase = c.phase
			w, job := stagingWorld(t, append(c.pods, live)...)
			w.Bounds.StagingPods = 1

			got, _ := w.backup(t, job.Name)
			assert.Equal(t, c.waits, w.stage(t, job.Name) == nil)

			if c.waits {
				assert.Equal(t, state.ReasonStagingCrowded, got.Status.Reason)
				assert.False(t, got.Status.Phase.Terminal())
			}
		})
	}
}

func TestAStagingPodMakesWayWhereTheVolumeIsForOneNodeAtATime(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		modes []corev1.PersistentVolumeAccessMode
		stays bool
	}{
		"for one node only":                          {modes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
		"for one that writes or many that read":      {modes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany}},
		"for many that read":                         {modes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}, stays: true},
		"for many that write, and therefore for any": {modes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteMany}, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w, job := stagingWorld(t)

			var claim corev1.PersistentVolumeClaim
			require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "app", Name: "data"}, &claim))
			claim.Spec.AccessModes = c.modes
			require.NoError(t, w.client.Update(t.Context(), &claim))

			w.backup(t, job.Name)
			w.start(t, job.Name)
			w.backup(t, job.Name)
			require.NoError(t, w.client.Create(t.Context(), realPod("n2", corev1.PodPending)))
			w.backup(t, job.Name)
			assert.Equal(t, c.stays, w.stage(t, job.Name) != nil)
		})
	}
}

func TestAStagingPodOfAnotherClaimEndsTheJob(t *testing.T) {
	t.Parallel()

	w, job := stagingWorld(t)
	w.backup(t, job.Name)

	forged := w.stage(t, job.Name)
	require.NotNil(t, forged)
	require.NoError(t, w.client.Delete(t.Context(), forged))

	forged.ResourceVersion = ""
	forged.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "other"
	require.NoError(t, w.client.Create(t.Context(), forged))

	got, _ := w.backup(t, job.Name)
	assert.Equal(t, state.ReasonStagingNameTaken, got.Status.Reason)
}

func TestAStagingPodThatWasTakenAwayIsMadeAgain(t *testing.T) {
	t.Parallel()

	for name, lose := range map[string]func(t *testing.T, w *world, pod *corev1.Pod){
		"because it was deleted": func(t *testing.T, w *world, pod *corev1.Pod) { require.NoError(t, w.client.Delete(t.Context(), pod)) },
		"because it was evicted": func(t *testing.T, w *world, pod *corev1.Pod) {
			pod.Status.Phase = corev1.PodFailed
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "TerminationByKubelet"}}
			require.NoError(t, w.client.Status().Update(t.Context(), pod))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w, job := stagingWorld(t)
			w.backup(t, job.Name)
			w.start(t, job.Name)
			w.backup(t, job.Name)

			got, _ := w.backup(t, job.Name)
			state.Apply(&got.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseInProgress, Reason: state.ReasonRunning}, w.clock.Now())
			got.Status.Attempts = 1
			require.NoError(t, w.client.Status().Update(t.Context(), got))

			lose(t, w, w.stage(t, job.Name))

			got, _ = w.backup(t, job.Name)
			assert.Equal(t, state.ReasonStagingLost, got.Status.Reason, got.Status.Message)
			assert.Equal(t, v1alpha1.PhaseInProgress, got.Status.Phase)
			assert.Empty(t, got.Labels[contract.LabelNode])
			assert.Nil(t, got.Status.Pod)
			assert.Zero(t, got.Status.Attempts, "that was no attempt")
			assert.Nil(t, w.stage(t, job.Name))

			w.clock.Step(w.Bounds.Recheck)

			got, _ = w.backup(t, job.Name)
			assert.Equal(t, state.ReasonStaging, got.Status.Reason, got.Status.Message)
			require.NotNil(t, w.stage(t, job.Name))

			w.start(t, job.Name)
			got, _ = w.backup(t, job.Name)
			assert.Equal(t, "n1", got.Labels[contract.LabelNode])
			assert.Equal(t, contract.StagingPodName(job.Name), got.Status.Pod.Name)

			state.Apply(&got.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseInProgress, Reason: state.ReasonRunning}, w.clock.Now())
			require.NoError(t, w.client.Status().Update(t.Context(), got))
			w.clock.Step(w.Bounds.Interruptions)
			lose(t, w, w.stage(t, job.Name))

			got, _ = w.backup(t, job.Name)
			assert.Equal(t, v1alpha1.PhaseFailed, got.Status.Phase, "it doesn't go on for ever")
			assert.Equal(t, state.ReasonStagingLost, got.Status.Reason)
			assert.Nil(t, w.stage(t, job.Name))
		})
	}
}

func TestAClaimWhosePodWentAwayIsReadAnotherWay(t *testing.T) {
	t.Parallel()

	successor := realPod("n1", corev1.PodRunning)
	successor.Name, successor.UID = "web-1", "newuid"

	// The pod of a Job that is done, or one that was evicted, stays there, and mounts nothing any more.
	ended, evicted := realPod("n1", corev1.PodSucceeded), realPod("n1", corev1.PodFailed)

	for name, c := range map[string]struct {
		pods   []client.Object
		frozen bool
		local  bool
		staged bool
		phase  v1alpha1.Phase
		reason string
		pod    string
	}{
		"through its successor":               {pods: []client.Object{successor}, phase: v1alpha1.PhaseInProgress, reason: state.ReasonRouted, pod: "web-1"},
		"through a staging pod":               {staged: true, phase: v1alpha1.PhaseInProgress, reason: state.ReasonStaging},
		"where it has ended":                  {pods: []client.Object{ended}, staged: true, phase: v1alpha1.PhaseInProgress, reason: state.ReasonStaging},
		"where it was evicted":                {pods: []client.Object{evicted, successor}, phase: v1alpha1.PhaseInProgress, reason: state.ReasonRouted, pod: "web-1"},
		"not where it is a node's folder":     {local: true, pods: []client.Object{successor}, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodNotFound},
		"not where its application is frozen": {frozen: true, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w, job := stagingWorld(t, c.pods...)
			require.NoError(t, w.client.Delete(t.Context(), job))

			if c.local {
				pv := volumeOfApp()
				require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(pv), pv))
				pv.Spec.HostPath, pv.Spec.NodeAffinity = &corev1.HostPathVolumeSource{Path: "/srv/data"}, nil
				require.NoError(t, w.client.Update(t.Context(), pv))
			}

			spec := job.Spec
			spec.Volume.Name, spec.Volume.Pod = "d", v1alpha1.PodReference{Name: "web-0", UID: "webuid"}
			spec.Options.Frozen = c.frozen
			job = jobs.NewBackup(veleroNS, "n1", spec)
			job.CreationTimestamp = metav1.NewTime(start)
			require.NoError(t, w.client.Create(t.Context(), job))

			state.Apply(&job.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseInProgress, Reason: state.ReasonRunning}, w.clock.Now())
			job.Status.Reason = state.ReasonPodLost
			require.NoError(t, w.client.Status().Update(t.Context(), job))

			got, _ := w.backup(t, job.Name)
			assert.Empty(t, got.Labels[contract.LabelNode], "it is taken from the node first")
			assert.Equal(t, v1alpha1.PhaseInProgress, got.Status.Phase)

			got, _ = w.backup(t, job.Name)
			assert.Equal(t, c.phase, got.Status.Phase, got.Status.Message)
			assert.Equal(t, c.reason, got.Status.Reason)
			assert.Equal(t, c.staged, w.stage(t, job.Name) != nil)

			if c.pod != "" {
				assert.Equal(t, c.pod, got.Status.Pod.Name)
				assert.Equal(t, "n1", got.Labels[contract.LabelNode])
			}
		})
	}
}

func TestAJobThatIsCancelledWhileItIsOnNoNodeSaysWhy(t *testing.T) {
	t.Parallel()

	w, job := stagingWorld(t)
	require.NoError(t, w.client.Delete(t.Context(), job))

	spec := job.Spec
	spec.Volume.Name, spec.Volume.Pod, spec.Cancel = "d", v1alpha1.PodReference{Name: "web-0", UID: "webuid"}, true
	job = jobs.NewBackup(veleroNS, "", spec)
	job.Annotations = map[string]string{v1alpha1.AnnotationOperationTimeout: "4h0m0s"}
	require.NoError(t, w.client.Create(t.Context(), job))

	job.Status.Phase, job.Status.Reason = v1alpha1.PhaseInProgress, state.ReasonPodLost
	require.NoError(t, w.client.Status().Update(t.Context(), job))

	got, _ := w.backup(t, job.Name)
	assert.Equal(t, v1alpha1.PhaseCanceled, got.Status.Phase)
	assert.Equal(t, state.ReasonOperationTimedOut, got.Status.Reason, got.Status.Message)
}

func TestOfTwoJobsThatStageOneClaimAtATimeTheLaterOneWaits(t *testing.T) {
	t.Parallel()

	owner := &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "b2", UID: "buid2"}, Status: velerov1.BackupStatus{Phase: velerov1.BackupPhaseWaitingForPluginOperations}}
	w, first := stagingWorld(t, owner)
	second := jobs.NewBackup(veleroNS, "", v1alpha1.VolumeBackupSpec{Backup: v1alpha1.OwnerReference{Name: "b2", UID: "buid2"}, Volume: first.Spec.Volume})
	require.NoError(t, w.client.Create(t.Context(), second))

	// Neither reconcile has seen the other's pod when it makes its own.
	pods := w.Pods
	w.Pods = podlist.New(withoutPods{w.Direct}, &hasty{})

	w.backup(t, first.Name)
	w.backup(t, second.Name)

	w.Pods = pods

	staged := map[string]*corev1.Pod{first.Name: w.stage(t, first.Name), second.Name: w.stage(t, second.Name)}

	for _, pod := range staged {
		require.NotNil(t, pod)

		pod.CreationTimestamp = metav1.NewTime(start)
		require.NoError(t, w.client.Update(t.Context(), pod))
	}

	winner, loser := first, second
	if staged[second.Name].Name < staged[first.Name].Name {
		winner, loser = second, first
	}

	got, _ := w.backup(t, winner.Name)
	assert.Equal(t, state.ReasonStagingUnscheduled, got.Status.Reason)

	got, _ = w.backup(t, loser.Name)
	assert.Equal(t, state.ReasonClaimHeld, got.Status.Reason)
	assert.Equal(t, v1alpha1.PhaseAccepted, got.Status.Phase)
	assert.Contains(t, got.Status.Message, winner.Name)
	assert.Nil(t, w.stage(t, loser.Name))

	w.start(t, winner.Name)
	got, _ = w.backup(t, winner.Name)
	assert.Equal(t, "n1", got.Labels[contract.LabelNode])

	got, _ = w.backup(t, loser.Name)
	assert.Equal(t, state.ReasonClaimHeld, got.Status.Reason)
	assert.Nil(t, w.stage(t, loser.Name), "none is made while the other one is there")

	require.NoError(t, w.client.Delete(t.Context(), w.stage(t, winner.Name)))
	w.backup(t, loser.Name)
	assert.NotNil(t, w.stage(t, loser.Name))
}

// withoutPods is a reader that doesn't see pods yet.
type withoutPods struct{ client.Reader }

func (r withoutPods) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if _, ok := list.(*corev1.PodList); ok {
		return nil
	}

	return r.Reader.List(ctx, list, opts...)
}

// A hostPath that is bound to no node is written only where a pod of the restore says on which node it is wanted.
func TestAFolderOfAnyNodeIsNotRestoredThroughAStagingPod(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		nodes  []client.Object
		bound  bool
		gated  bool
		reason string
	}{
		"one of two nodes'":                  {nodes: []client.Object{lease("n2", start)}, reason: state.ReasonVolumeUnsupported},
		"the only node's":                    {reason: state.ReasonStaging},
		"one that is bound to its node":      {nodes: []client.Object{lease("n2", start)}, bound: true, reason: state.ReasonStaging},
		"one that a pod of the restore uses": {nodes: []client.Object{lease("n2", start)}, gated: true, reason: state.ReasonGateNotReached},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, job := restoreInto("r")
			w, _ := stagingWorld(t, append(c.nodes, owner, job)...)

			pv := volumeOfApp()
			require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(pv), pv))
			pv.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/srv/data"}

			if !c.bound {
				pv.Spec.NodeAffinity = nil
			}

			require.NoError(t, w.client.Update(t.Context(), pv))

			if c.gated {
				text, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: "r-uid"}, Jobs: map[string]string{"d": job.Name}}.Encode()
				require.NoError(t, err)

				pod := realPod("n1", corev1.PodPending)
				pod.Annotations = map[string]string{contract.AnnotationRestore: text}
				pod.Spec.InitContainers = []corev1.Container{{Name: contract.GateContainer}}
				require.NoError(t, w.client.Create(t.Context(), pod))
			}

			got := w.restore(t, job.Name)
			assert.Equal(t, c.reason, got.Status.Reason, got.Status.Message)

			if c.reason == state.ReasonVolumeUnsupported {
				assert.Contains(t, got.Status.Message, "PersistentVolume pv")
				assert.Contains(t, got.Status.Message, "spec.nodeAffinity")
				assert.Empty(t, w.unfilled(t), "nothing is to be written")
			}

			assert.Equal(t, c.reason == state.ReasonStaging, w.stage(t, job.Name) != nil)
		})
	}
}
