package restore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/operation"
)

func TestAClaimIsMarkedFromItsFirstMomentOn(t *testing.T) {
	const asked = "its own job"

	update := func(r *velerov1.Restore) { r.Spec.ExistingResourcePolicy = velerov1.PolicyTypeUpdate }

	for name, tt := range map[string]struct {
		record string
		live   map[string]string
		change func(r *velerov1.Restore)
		want   string
	}{
		"a new one that is filled":             {record: "nightly", want: asked},
		"one that nothing is asked for":        {},
		"without data":                         {record: "nightly", change: func(r *velerov1.Restore) { r.Spec.RestorePVs = ptr.To(false) }},
		"one that is there":                    {record: "nightly", live: map[string]string{}},
		"one that is there, unfilled":          {record: "nightly", live: map[string]string{contract.LabelUnfilled: "vr-0"}, want: "vr-0"},
		"an update of one that is there":       {record: "nightly", change: update, live: map[string]string{"app": "shop"}},
		"an update of one that isn't filled":   {record: "nightly", change: update, live: map[string]string{contract.LabelUnfilled: "vr-0"}, want: "vr-0"},
		"an update that brings no data for it": {change: update, live: map[string]string{contract.LabelUnfilled: "vr-0"}, want: "vr-0"},
		"in another namespace": {record: "nightly", want: asked, live: map[string]string{}, change: func(r *velerov1.Restore) {
			r.Spec.NamespaceMapping = map[string]string{"shop": "shop2"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tt.change != nil {
				tt.change(b.restore)
			}

			if tt.live != nil {
				require.NoError(t, b.client.Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", Labels: tt.live}}))
			}

			// What an earlier restore has left in the backup counts for nothing.
			saved := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", Labels: map[string]string{contract.LabelUnfilled: "vr-stale"}}}
			if tt.record != "" {
				saved.Annotations = map[string]string{contract.AnnotationVolume: claimRecord(t, tt.record)}
			}

			out, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: b.item(saved), ItemFromBackup: b.item(saved), Restore: b.restore})
			require.NoError(t, err)

			want := tt.want
			if want == asked {
				id, err := operation.Parse(out.OperationID)
				require.NoError(t, err)

				want = id.Jobs[0]
			}

			got := &unstructured.Unstructured{Object: out.UpdatedItem.UnstructuredContent()}
			assert.Equal(t, want, got.GetLabels()[contract.LabelUnfilled])
		})
	}
}
