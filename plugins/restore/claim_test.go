package restore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/operation"
)

func TestClaim(t *testing.T) {
	claim := func(record string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", Annotations: map[string]string{
				contract.AnnotationVolume: record, "mine": "kept",
				"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
				"volume.kubernetes.io/selected-node": "n", "volume.kubernetes.io/storage-provisioner": "p", "volume.beta.kubernetes.io/storage-provisioner": "p",
			}},
			Spec: corev1.PersistentVolumeClaimSpec{
				VolumeName: "pv", StorageClassName: ptr.To("fast"), DataSource: &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"},
				DataSourceRef: &corev1.TypedObjectReference{Kind: "VolumeSnapshot", Name: "s"},
			},
		}
	}

	tests := map[string]struct {
		record string
		change func(r *velerov1.Restore)
		freed  bool
		filled bool
		warns  string
	}{
		"one that was moved":            {record: claimRecord(t, "nightly"), freed: true, filled: true},
		"volumes aren't to be restored": {record: claimRecord(t, "nightly"), change: func(r *velerov1.Restore) { r.Spec.RestorePVs = ptr.To(false) }, freed: true},
		"unreadable, and not wanted":    {record: `{"version":9}`, change: func(r *velerov1.Restore) { r.Spec.RestorePVs = ptr.To(false) }, freed: true},
		"one with another backup's":     {record: claimRecord(t, "older"), warns: "older"},
		"the restore leaves pods out":   {record: claimRecord(t, "nightly"), change: func(r *velerov1.Restore) { r.Spec.ExcludedResources = []string{"pods"} }, freed: true, filled: true},
		"into another namespace":        {record: claimRecord(t, "nightly"), change: func(r *velerov1.Restore) { r.Spec.NamespaceMapping = map[string]string{"shop": "shop2"} }, freed: true, filled: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tt.change != nil {
				tt.change(b.restore)
			}

			out, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{
				Item: b.item(claim(tt.record)), ItemFromBackup: b.item(claim(tt.record)), Restore: b.restore,
			})
			require.NoError(t, err)

			got := new(corev1.PersistentVolumeClaim)
			require.NoError(t, kruntime.DefaultUnstructuredConverter.FromUnstructured(out.UpdatedItem.UnstructuredContent(), got))
			assert.NotContains(t, got.Annotations, contract.AnnotationVolume)
			assert.Equal(t, "fast", *got.Spec.StorageClassName)

			if tt.freed {
				assert.Equal(t, map[string]string{"mine": "kept"}, got.Annotations)
				assert.Empty(t, got.Spec.VolumeName)
				assert.Nil(t, got.Spec.DataSource)
				assert.Nil(t, got.Spec.DataSourceRef)
			} else {
				assert.Equal(t, "pv", got.Spec.VolumeName)
			}

			if tt.warns != "" {
				assert.Contains(t, b.lines.LastEntry().Message, tt.warns)
			}

			made := b.jobs()
			if !tt.filled {
				assert.Empty(t, made)
				assert.Empty(t, out.OperationID)

				return
			}

			namespace := "shop"
			if to := b.restore.Spec.NamespaceMapping["shop"]; to != "" {
				namespace = to
			}

			require.Len(t, made, 1)
			assert.Equal(t, &v1alpha1.OriginalVolume{ReclaimPolicy: "Retain", Labels: map[string]string{"tier": "gold"}}, made[0].Spec.Original)
			assert.Equal(t, "estiba/v1/VolumeRestore/"+made[0].Name, out.OperationID)
			assert.Equal(t, v1alpha1.VolumeReference{
				Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: namespace, Claim: &v1alpha1.ClaimReference{Name: "data"},
			}, made[0].Spec.Target, "whichever pods mount it")
		})
	}
}

func TestAClaimAndItsPodsShareTheJob(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "data", Annotations: map[string]string{contract.AnnotationVolume: claimRecord(t, "nightly")},
	}}
	b := newBench(t)

	out, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: b.item(claim), ItemFromBackup: b.item(claim), Restore: b.restore})
	require.NoError(t, err)

	_, ofPod, err := b.pod(recorded("web", podRecord(t, "nightly")))
	require.NoError(t, err)
	assert.Len(t, b.jobs(), 2, "one for the claim, and one for the emptyDir")

	id, err := operation.Parse(out.OperationID)
	require.NoError(t, err)
	assert.Contains(t, ofPod.OperationID, id.Jobs[0])
}

func TestAClaimThatNobodyWouldFillIsNotRestored(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "data", Annotations: map[string]string{contract.AnnotationVolume: claimRecord(t, "nightly")},
	}}
	b := newBench(t, "backup")

	_, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: b.item(claim), ItemFromBackup: b.item(claim), Restore: b.restore})
	require.ErrorContains(t, err, "would come back empty")
	require.ErrorContains(t, err, "Backup velero/nightly")
}

func TestTheClaimOfAnEphemeralVolumeIsLeftToKubernetesAndItsDataToThePod(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web-scratch", Annotations: map[string]string{contract.AnnotationVolume: claimRecord(t, "nightly")},
	}}
	original := claim.DeepCopy()
	original.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "web", UID: "p", Controller: ptr.To(true)}}
	b := newBench(t)

	out, err := NewClaimAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{Item: b.item(claim), ItemFromBackup: b.item(original), Restore: b.restore})
	require.NoError(t, err)
	assert.True(t, out.SkipRestore, "Velero's claim would bear no owner, and the pod would never start")
	assert.Empty(t, b.jobs())

	pod := recorded("web", podRecord(t, "nightly"))
	pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
	_, _, err = b.pod(pod)
	require.NoError(t, err)

	for _, job := range b.jobs() {
		if job.Spec.Target.Name == pod.Spec.Volumes[0].Name {
			require.NotNil(t, job.Spec.Target.Claim)
			assert.Equal(t, "web-"+pod.Spec.Volumes[0].Name, job.Spec.Target.Claim.Name)

			return
		}
	}

	t.Fatal("no job fills the volume")
}
