package cluster_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/state"
)

// adoptedPod is a restored pod that its ReplicaSet has adopted beside the claim that stood in for it.
func adoptedPod(t *testing.T) (*corev1.Pod, ctrl.Request) {
	t.Helper()

	text, err := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: "u"}, VeleroNamespace: veleroNS, StandIn: "claim"}.Encode()
	require.NoError(t, err)

	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "app", Name: "web", UID: "web", Annotations: map[string]string{contract.AnnotationRestore: text},
		OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: "data", UID: "claim"},
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "rs", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)},
		},
	}}

	return pod, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(pod)}
}

func owners(t *testing.T, c client.Client, key types.NamespacedName) (kinds []string) {
	t.Helper()

	var pod corev1.Pod
	require.NoError(t, c.Get(t.Context(), key, &pod))

	for _, o := range pod.OwnerReferences {
		kinds = append(kinds, o.Kind)
	}

	return kinds
}

func TestAnAdoptedPodLosesTheOwnerThatStoodIn(t *testing.T) {
	t.Parallel()

	pod, req := adoptedPod(t)
	w := newWorld(t, pod)

	for range 2 {
		got, err := w.ReconcileAdopted(t.Context(), req)
		require.NoError(t, err)
		assert.Zero(t, got)
		assert.Equal(t, []string{"ReplicaSet"}, owners(t, w.client, req.NamespacedName))
	}

	require.NoError(t, w.client.Delete(t.Context(), pod))
	got, err := w.ReconcileAdopted(t.Context(), req)
	require.NoError(t, err)
	assert.Zero(t, got)
}

// What its controller does with the pod meanwhile counts.
func TestAPodThatItsControllerLetsGoMeanwhileKeepsItsOwner(t *testing.T) {
	t.Parallel()

	pod, req := adoptedPod(t)
	w := newWorld(t, pod)
	w.Client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			released := new(corev1.Pod)
			require.NoError(t, c.Get(ctx, req.NamespacedName, released))
			released.OwnerReferences = released.OwnerReferences[:1]
			require.NoError(t, c.Update(ctx, released))

			return c.Patch(ctx, o, p, opts...)
		},
	})

	got, err := w.ReconcileAdopted(t.Context(), req)
	require.NoError(t, err)
	assert.NotZero(t, got.RequeueAfter, "the cache will tell")
	assert.Equal(t, []string{"PersistentVolumeClaim"}, owners(t, w.client, req.NamespacedName))
}

func TestAPodWhoseStandInStaysSaysSo(t *testing.T) {
	t.Parallel()

	pod, req := adoptedPod(t)
	w := newWorld(t, pod)
	w.Client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", errors.New("not by you"))
		},
	})

	_, err := w.ReconcileAdopted(t.Context(), req)
	require.ErrorContains(t, err, "not by you", "it is tried again")

	said := <-w.Events.(*record.FakeRecorder).Events
	assert.Contains(t, said, state.ReasonStandInStays)
	assert.Contains(t, said, "if you delete the pod's workload, delete the pod, too")
}
