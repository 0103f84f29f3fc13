package cluster_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// claimRestore is a restore of a claim, and its owner.
func claimRestore(claim string) (*velerov1.Restore, *v1alpha1.VolumeRestore) {
	owner := &velerov1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: veleroNS, Name: "r", UID: "ruid"}, Status: velerov1.RestoreStatus{Phase: velerov1.RestorePhaseInProgress}}

	return owner, jobs.NewRestore(veleroNS, v1alpha1.VolumeRestoreSpec{
		Restore: v1alpha1.OwnerReference{Name: "r", UID: "ruid"},
		Target: v1alpha1.VolumeReference{
			Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: claim},
		},
	})
}

// waitingPod mounts the claim, has a gate that waits for the job, and no node.
func waitingPod(t *testing.T, name, claim, job string) *corev1.Pod {
	t.Helper()

	note, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: "ruid"}, Jobs: map[string]string{"data": job}}.Encode()
	require.NoError(t, err)

	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "app", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(start), Annotations: map[string]string{contract.AnnotationRestore: note},
		},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: contract.GateContainer}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}}},
		},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims",
		}}},
	}
}

func (w *world) restored(t *testing.T, name string) *v1alpha1.VolumeRestore {
	t.Helper()

	_, err := w.ReconcileRestore(t.Context(), req(name))
	require.NoError(t, err)

	var got v1alpha1.VolumeRestore

	require.NoError(t, w.client.Get(t.Context(), req(name).NamespacedName, &got))

	return &got
}

func TestARestoreSaysAtOnceWhyItsClaimGetsNoVolume(t *testing.T) {
	t.Parallel()

	at := func(minutes int) metav1.Time { return metav1.NewTime(start.Add(time.Duration(minutes) * time.Minute)) }
	event := func(name, kind, reason, message string, minutes int, by string) *corev1.Event {
		return &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "app", Name: name},
			InvolvedObject: corev1.ObjectReference{Kind: "PersistentVolumeClaim", Name: "data", UID: "cuid"},
			Type:           kind, Reason: reason, Message: message, LastTimestamp: at(minutes), Source: corev1.EventSource{Component: by},
		}
	}
	failed := event("b", corev1.EventTypeWarning, "ProvisioningFailed", "only ReadWriteOnce", 2, "driver")

	for name, tt := range map[string]struct {
		events []*corev1.Event
		class  bool
		bound  bool
		reason string
		says   string
		bounds time.Duration
	}{
		"its class isn't there": {
			events: []*corev1.Event{event("a", corev1.EventTypeWarning, "ProvisioningFailed", `storageclass "fast" not found`, 1, "persistentvolume-controller")},
			reason: state.ReasonClaimPending, says: `app/data gets no volume: ProvisioningFailed: storageclass "fast" not found; make the storage class`, bounds: 2 * time.Minute,
		},
		"its class can't": {
			class: true, events: []*corev1.Event{event("a", corev1.EventTypeWarning, "ProvisioningFailed", "busy", 1, "driver"), failed},
			reason: state.ReasonClaimPending, says: "app/data gets no volume: ProvisioningFailed: only ReadWriteOnce", bounds: 10 * time.Minute,
		},
		"it is being made":            {class: true, events: []*corev1.Event{event("a", corev1.EventTypeNormal, "Provisioning", "soon", 1, "driver")}, reason: state.ReasonPodUnscheduled, says: "unbound"},
		"only we have said something": {class: true, events: []*corev1.Event{event("a", corev1.EventTypeWarning, "PodDeleted", "m", 1, contract.ComponentController)}, reason: state.ReasonPodUnscheduled, says: "unbound"},
		"nothing is known":            {reason: state.ReasonPodUnscheduled, says: "unbound"},
		"it has one by now":           {class: true, bound: true, events: []*corev1.Event{failed}, reason: state.ReasonPodUnscheduled, says: "unbound"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner, job := claimRestore("data")
			claim := &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "data", UID: "cuid"},
				Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("fast")},
				Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
			}

			if tt.bound {
				claim.Spec.VolumeName, claim.Status.Phase = "pv", corev1.ClaimBound
			}

			w := newWorld(t, owner, job, claim, waitingPod(t, "web-0", "data", job.Name), lease("n1", start))
			for _, e := range tt.events {
				require.NoError(t, w.client.Create(t.Context(), e.DeepCopy()))
			}

			if tt.class {
				require.NoError(t, w.client.Create(t.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "driver"}))
			}

			got := w.restored(t, job.Name)
			assert.Equal(t, tt.reason, got.Status.Reason)
			assert.Contains(t, got.Status.Message, tt.says)
			assert.False(t, got.Status.Phase.Terminal())

			if tt.bounds == 0 {
				return
			}

			w.clock.Step(tt.bounds)

			got = w.restored(t, job.Name)
			assert.Equal(t, v1alpha1.PhaseFailed, got.Status.Phase)
			assert.Equal(t, state.ReasonClaimPending, got.Status.Reason)
			assert.Contains(t, got.Status.Message, tt.says)
		})
	}
}

// A hundred claims of one namespace wait for a hundred pods: each has to see all of them, every few seconds.
func TestJobsOfANamespaceShareTheirLooksAtItsPods(t *testing.T) {
	t.Parallel()

	const n = 100

	owner, _ := claimRestore("")
	w := newWorld(t, owner, lease("n1", start))

	var (
		names []string
		lists atomic.Int64
	)

	for i := range n {
		claim := fmt.Sprintf("data-%d", i)
		_, job := claimRestore(claim)
		names = append(names, job.Name)

		require.NoError(t, w.client.Create(t.Context(), job))
		require.NoError(t, w.client.Create(t.Context(), waitingPod(t, fmt.Sprintf("web-%d", i), claim, job.Name)))
	}

	counting := interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
			if _, pods := l.(*corev1.PodList); pods {
				lists.Add(1)
			}

			return c.List(ctx, l, o...)
		},
	})
	w.Pods = podlist.New(counting, w.clock)

	round := func() int64 {
		before := lists.Load()

		for _, name := range names {
			got := w.restored(t, name)
			assert.Equal(t, state.ReasonPodUnscheduled, got.Status.Reason)
			w.clock.Step(time.Millisecond)
		}

		return lists.Load() - before
	}

	assert.EqualValues(t, 1, round(), "the first look")

	for range 5 {
		w.clock.Step(w.Bounds.Recheck)
		assert.EqualValues(t, 1, round(), "one list a round, not one a job")
	}

	w.clock.Step(w.Bounds.Soon)
	w.Pods.Changed("app")
	assert.EqualValues(t, 1, round(), "what was heard of is seen")
}
