package restore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestAClaimWhoseDataIsNotInTheBackupIsSaidToComeBackEmpty(t *testing.T) {
	of := func(backup string) string {
		text, err := contract.UnprotectedRecord{Backup: contract.Owner{Name: backup, UID: "b-1"}, Reason: "ClaimLost: its volume is gone"}.Encode()
		require.NoError(t, err)

		return text
	}

	for name, tt := range map[string]struct {
		record string
		change func(r *velerov1.Restore)
		says   string
		warns  bool
	}{
		"of this backup":    {record: of("nightly"), says: "ClaimLost: its volume is gone", warns: true},
		"of another backup": {record: of("older"), says: "belongs to the backup"},
		"unreadable":        {record: `{"version":9}`, says: "version 9 is not known", warns: true},
		"nobody wants data": {record: of("nightly"), change: func(r *velerov1.Restore) { r.Spec.RestorePVs = ptr.To(false) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "lease", "daemonset", "controller")
			if tt.change != nil {
				tt.change(b.restore)
			}

			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "data", Annotations: map[string]string{contract.AnnotationVolumeUnprotected: tt.record},
			}}
			original := claim.DeepCopy()

			out, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: b.item(claim), ItemFromBackup: b.item(original), Restore: b.restore})
			require.NoError(t, err)
			assert.Empty(t, out.OperationID)
			assert.Empty(t, b.jobs())
			assert.NotContains(t, annotations(out.UpdatedItem), contract.AnnotationVolumeUnprotected)

			if tt.says != "" {
				assert.Contains(t, b.lines.LastEntry().Message, tt.says)
			}

			if !tt.warns {
				assert.Empty(t, out.AdditionalItems)
				return
			}

			require.Len(t, out.AdditionalItems, 1, "Velero warns of what the backup doesn't hold")
			assert.Equal(t, "volume-data-not-in-backup.estiba.dev", out.AdditionalItems[0].String())
			assert.Equal(t, "claim-data", out.AdditionalItems[0].Name)
		})
	}
}
