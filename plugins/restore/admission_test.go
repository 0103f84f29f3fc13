package restore

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/contract"
)

// refusing has the API server refuse pods by a rule.
func (b *bench) refusing(rule func(*unstructured.Unstructured) string) {
	b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			p, ok := o.(*unstructured.Unstructured)
			if !ok {
				return c.Create(ctx, o, opts...)
			}

			if why := rule(p); why != "" {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, p.GetName(), errors.New(why))
			}

			return nil
		},
	})
}

func TestAPodThatMustHaveAnOwnerGetsOneUntilItsControllerAdoptsIt(t *testing.T) {
	mustHaveOwner := func(p *unstructured.Unstructured) string {
		if len(p.GetOwnerReferences()) == 0 {
			return "pods must have an owner"
		}

		return ""
	}
	controller := []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "rs", Controller: ptr.To(true)}}

	tests := map[string]struct {
		owners []metav1.OwnerReference
		there  []client.Object
		rule   func(*unstructured.Unstructured) string
		want   []metav1.OwnerReference
	}{
		"its claim": {
			owners: controller, rule: mustHaveOwner,
			there: []client.Object{
				&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim"}},
				&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "runner", UID: "account"}},
			},
			want: []metav1.OwnerReference{{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: "data", UID: "claim"}},
		},
		"its ServiceAccount, where no claim is there": {
			owners: controller, rule: mustHaveOwner,
			there: []client.Object{&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "runner", UID: "account"}}},
			want:  []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: "runner", UID: "account"}},
		},
		"none, where none is there": {owners: controller, rule: mustHaveOwner},
		"none, where it had none": {
			rule:  mustHaveOwner,
			there: []client.Object{&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim"}}},
		},
		"none, where it needs none": {
			owners: controller, rule: func(*unstructured.Unstructured) string { return "" },
			there: []client.Object{&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim"}}},
		},
		"none, where it doesn't help": {
			owners: controller, rule: func(*unstructured.Unstructured) string { return "no pods at all" },
			there: []client.Object{&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim"}}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for _, o := range tt.there {
				require.NoError(t, b.client.Create(t.Context(), o))
			}

			b.refusing(tt.rule)

			original := recorded("web", podRecord(t, "nightly"))
			original.OwnerReferences, original.Spec.ServiceAccountName = tt.owners, "runner"

			pod, out, err := b.pod(original)
			require.NoError(t, err)
			assert.Equal(t, tt.want, pod.OwnerReferences)

			record, err := contract.DecodeGateRecord(pod.Annotations[contract.AnnotationRestore])
			require.NoError(t, err)

			if len(tt.want) > 0 {
				assert.Equal(t, string(tt.want[0].UID), record.StandIn, "it is to go again")
			} else {
				assert.Empty(t, record.StandIn)
			}
			assert.Equal(t, contract.GateContainer, pod.Spec.InitContainers[0].Name)
			assert.NotEmpty(t, out.OperationID)
		})
	}
}

func TestTheGateAsksForMoreOnlyWhereTheNamespaceWantsIt(t *testing.T) {
	atLeast := func(p *unstructured.Unstructured) string {
		list, _, _ := unstructured.NestedSlice(p.Object, "spec", "initContainers")
		cpu, _, _ := unstructured.NestedString(list[0].(map[string]any), "resources", "limits", "cpu")

		if len(list) == 2 && cpu != "2" {
			return "minimum cpu usage per Container is 2"
		}

		return ""
	}
	b := newBench(t)
	b.refusing(atLeast)

	original := recorded("web", podRecord(t, "nightly"))
	original.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}

	pod, _, err := b.pod(original)
	require.NoError(t, err)
	assert.Equal(t, "2", pod.Spec.InitContainers[0].Resources.Limits.Cpu().String())
	assert.Empty(t, pod.Spec.SchedulingGates)
}

func TestAPodWhoseGateIsRefusedIsHeldBackAlsoWhereNoPodMayStartWithoutAGate(t *testing.T) {
	b := newBench(t)
	b.refusing(func(p *unstructured.Unstructured) string {
		inits, _, _ := unstructured.NestedSlice(p.Object, "spec", "initContainers")
		gates, _, _ := unstructured.NestedSlice(p.Object, "spec", "schedulingGates")

		switch {
		case len(inits) == 2:
			return "image not signed"
		case len(gates) == 0:
			return "claim data lacks its data"
		default:
			return ""
		}
	})

	pod, _, err := b.pod(recorded("web", podRecord(t, "nightly")))
	require.NoError(t, err)
	assert.Len(t, pod.Spec.SchedulingGates, 1)
	requireHeld(b, "image not signed")
}
