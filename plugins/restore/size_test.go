package restore

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/contract"
)

func storage(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

// backedUpClaim is a claim of 10Mi whose volume had the size.
func backedUpClaim(t *testing.T, size string) *corev1.PersistentVolumeClaim {
	t.Helper()

	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", Annotations: map[string]string{contract.AnnotationVolume: claimRecord(t, "nightly")}},
		Spec: corev1.PersistentVolumeClaimSpec{
			VolumeName: "pv", StorageClassName: ptr.To("fast"), Resources: corev1.VolumeResourceRequirements{Requests: storage("10Mi")},
		},
		Status: corev1.PersistentVolumeClaimStatus{Capacity: storage(size)},
	}
}

// restoredClaim returns the claim as the action leaves it.
func (b *bench) restoredClaim(original *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
	b.Helper()

	// Velero takes the status off before it asks.
	item := original.DeepCopy()
	item.Status = corev1.PersistentVolumeClaimStatus{}

	out, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{
		Item: b.item(item), ItemFromBackup: b.item(original), Restore: b.restore,
	})
	if err != nil {
		return nil, err
	}

	got := new(corev1.PersistentVolumeClaim)
	require.NoError(b, kruntime.DefaultUnstructuredConverter.FromUnstructured(out.UpdatedItem.UnstructuredContent(), got))

	return got, nil
}

func TestAClaimAsksForWhatItsVolumeHeld(t *testing.T) {
	class := func(provisioner string) client.Object {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: provisioner}
	}
	there := func(size string) client.Object {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"}, Status: corev1.PersistentVolumeClaimStatus{Capacity: storage(size)}}
	}

	tests := map[string]struct {
		held    string
		there   []client.Object
		class   *string
		refused bool
		asks    string
		warns   string
	}{
		"it held more":                     {held: "5Gi", there: []client.Object{class("driver")}, asks: "5Gi"},
		"it held as much":                  {held: "10Mi", there: []client.Object{class("driver")}, asks: "10Mi"},
		"the volumes are made by hand":     {held: "5Gi", there: []client.Object{class("kubernetes.io/no-provisioner")}, asks: "10Mi", warns: "made by hand"},
		"it has no class":                  {held: "5Gi", class: ptr.To(""), asks: "10Mi", warns: "no storage class"},
		"the class isn't there":            {held: "5Gi", asks: "10Mi", warns: "storage class fast can't be read"},
		"a quota forbids it":               {held: "5Gi", there: []client.Object{class("driver")}, refused: true, asks: "10Mi", warns: "exceeded quota"},
		"the claim is there":               {held: "5Gi", there: []client.Object{class("driver"), there("10Mi")}, asks: "10Mi", warns: "is there already, with a volume of 10Mi"},
		"the claim is there, large enough": {held: "5Gi", there: []client.Object{class("driver"), there("6Gi")}, asks: "5Gi"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for _, o := range tt.there {
				require.NoError(t, b.client.Create(t.Context(), o))
			}

			b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
				Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
					if _, dry := o.(*unstructured.Unstructured); !dry {
						return c.Create(ctx, o, opts...)
					}

					assert.Equal(t, []client.CreateOption{client.DryRunAll}, opts)

					if tt.refused {
						return apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumeclaims"}, "data", errors.New("exceeded quota"))
					}

					return nil
				},
			})

			original := backedUpClaim(t, tt.held)
			if tt.class != nil {
				original.Spec.StorageClassName = tt.class
			}

			got, err := b.restoredClaim(original)
			require.NoError(t, err)
			assert.Equal(t, tt.asks, got.Spec.Resources.Requests.Storage().String())
			assert.Equal(t, tt.warns != "", said(b, tt.warns, true))

			if tt.warns != "" {
				assert.True(t, said(b, "asks for 10Mi, and its original volume held 5Gi", true))
			}
		})
	}
}

func TestAClaimThatWouldBeBoundToItsOriginalVolumeIsNotRestored(t *testing.T) {
	remade := func() *corev1.PersistentVolume {
		return &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv", Labels: map[string]string{contract.LabelRestoreName: "again"}},
			Spec:       corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "data"}},
		}
	}

	tests := map[string]struct {
		change  func(*corev1.PersistentVolume, *velerov1.Restore)
		refused bool
	}{
		"this restore has made it anew": {refused: true},
		"it is another claim's":         {change: func(pv *corev1.PersistentVolume, _ *velerov1.Restore) { pv.Spec.ClaimRef.Name = "other" }},
		"it was there":                  {change: func(pv *corev1.PersistentVolume, _ *velerov1.Restore) { pv.Labels = nil }},
		"it is nobody's":                {change: func(pv *corev1.PersistentVolume, _ *velerov1.Restore) { pv.Spec.ClaimRef = nil }},
		"it has another name":           {change: func(pv *corev1.PersistentVolume, _ *velerov1.Restore) { pv.Name = "other" }},
		"into another namespace": {refused: true, change: func(pv *corev1.PersistentVolume, r *velerov1.Restore) {
			pv.Spec.ClaimRef.Namespace, r.Spec.NamespaceMapping = "shop2", map[string]string{"shop": "shop2"}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			pv := remade()

			if tt.change != nil {
				tt.change(pv, b.restore)
			}

			require.NoError(t, b.client.Create(t.Context(), pv))

			_, err := b.restoredClaim(backedUpClaim(t, "10Mi"))
			if !tt.refused {
				require.NoError(t, err)

				return
			}

			require.ErrorContains(t, err, "claim shop/data is not restored: PersistentVolume pv, the original one, was made anew")
			assert.Empty(t, b.jobs())
		})
	}
}
