package backup

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

func TestEachSelectedVolumeThatIsNotMovedIsInTheRecord(t *testing.T) {
	claim, pv := boundClaim("data")
	hostPath := corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}
	secret := corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}
	pod := podWith("web", selecting("data,cache,host,secret"), ofClaim("data", "data"), emptyDir("cache"), emptyDir("other"), hostPath, secret)
	block := corev1.PersistentVolumeBlock
	claim.Spec.VolumeMode = &block

	b := newBench(t, claim, pv, pod)
	annotations, _ := b.run(pod)

	record, err := contract.DecodePodRecord(annotations[contract.AnnotationVolumes])
	require.NoError(t, err)
	assert.Contains(t, record.Volumes, "cache")
	require.Len(t, record.Unprotected, 2, "neither what nobody asked for, nor what Kubernetes fills itself: %v", record.Unprotected)
	assert.Contains(t, record.Unprotected["data"], "BlockVolume: ")
	assert.Contains(t, record.Unprotected["host"], "HostPath: ")
}

func TestARepositoryThatIsNotReadyIsInThePodsRecord(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", selecting("data"), ofClaim("data", "data"))
	b := newBench(t, claim, pv, pod)
	b.repository(v1alpha1.RepositoryStatus{
		Phase: v1alpha1.RepositoryNotReady, Reason: "MasterKeyMissing", Message: "no key", LastCheckedTimestamp: ptr.To(metav1.NewTime(b.clock.Now())),
	})

	volume, _ := b.run(pv)
	record, _ := b.run(claim)
	assert.NotContains(t, volume, contract.AnnotationVolume)
	assert.NotContains(t, record, contract.AnnotationVolume)

	annotations, _ := b.run(pod)
	r, err := contract.DecodePodRecord(annotations[contract.AnnotationVolumes])
	require.NoError(t, err)
	assert.Contains(t, r.Unprotected["data"], "MasterKeyMissing: no key")
}

func (b *bench) repository(status v1alpha1.RepositoryStatus) {
	b.Helper()

	repo := jobs.NewRepository("velero", "default", "shop")
	require.NoError(b, b.client.Get(context.Background(), client.ObjectKeyFromObject(repo), repo))

	repo.Status = status
	require.NoError(b, b.client.Update(context.Background(), repo))
}

func TestAClaimIsRecordedWhereItsVolumeIs(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", selecting("data"), ofClaim("data", "data"))

	t.Run("although the job can't be made", func(t *testing.T) {
		b := newBench(t, claim, pv, pod)
		working := b.client
		b.client = interceptor.NewClient(working.(client.WithWatch), interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
				if _, ok := o.(*v1alpha1.VolumeBackup); ok {
					return errors.New("refused")
				}

				return c.Create(ctx, o, opts...)
			},
		})

		volume, _ := b.run(pv)
		record, op := b.run(claim)
		require.Contains(t, volume, contract.AnnotationVolume)
		assert.Equal(t, volume[contract.AnnotationVolume], record[contract.AnnotationVolume])
		assert.Contains(t, record[contract.AnnotationVolume], `"persistentVolume":{"reclaimPolicy":"Retain","labels":{"tier":"gold"}}`)
		assert.Empty(t, op)
		assert.NotEmpty(t, b.said(logrus.ErrorLevel))

		annotations, _ := b.run(pod)
		assert.Contains(t, annotations[contract.AnnotationVolumes], `"data":{"job":"vb-`, "its pods are held until it is known what became of the data")
	})

	t.Run("although the daemon has gone in between", func(t *testing.T) {
		b := newBench(t, claim, pv, pod)
		volume, _ := b.run(pv)
		b.clock.Step(5 * time.Minute)

		record, op := b.run(claim)
		require.Contains(t, volume, contract.AnnotationVolume)
		assert.Equal(t, volume[contract.AnnotationVolume], record[contract.AnnotationVolume])
		assert.Empty(t, op)
	})
}

func TestAVolumeIsRecordedOnlyIfItsClaimIsInTheBackup(t *testing.T) {
	labelled := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}

	tests := map[string]struct {
		change func(b *velerov1.Backup, c *corev1.PersistentVolumeClaim, p *corev1.Pod)
		want   bool
	}{
		"no filters": {want: true},
		"its namespace": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.IncludedNamespaces = []string{"shop"}
		}, want: true},
		"another namespace": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.IncludedNamespaces = []string{"bank"}
		}},
		"its namespace is out": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.ExcludedNamespaces = []string{"shop"}
		}},
		"volumes only": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.IncludedResources = []string{"persistentvolumes"}
		}},
		"claims by short name": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.IncludedResources = []string{"pvc", "pv"}
		}, want: true},
		"claims are out": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.ExcludedNamespaceScopedResources = []string{"persistentvolumeclaims"}
		}},
		"the claim's label": {change: func(b *velerov1.Backup, c *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.LabelSelector = labelled
			c.Labels = labelled.MatchLabels
		}, want: true},
		"the pod's label": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, p *corev1.Pod) {
			b.Spec.LabelSelector = labelled
			p.Labels = labelled.MatchLabels
		}, want: true},
		"nobody's label": {change: func(b *velerov1.Backup, _ *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			b.Spec.OrLabelSelectors = []*metav1.LabelSelector{labelled}
		}},
		"excluded by its label": {change: func(_ *velerov1.Backup, c *corev1.PersistentVolumeClaim, _ *corev1.Pod) {
			c.Labels = map[string]string{contract.LabelExcludeFromBackup: "true"}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			claim, pv := boundClaim("data")
			pod := podWith("web", selecting("data"), ofClaim("data", "data"))
			backup := &velerov1.Backup{}

			if tt.change != nil {
				tt.change(backup, claim, pod)
			}

			b := newBench(t, claim, pv, pod)
			backup.Spec.StorageLocation = b.backup.Spec.StorageLocation
			b.backup.Spec = backup.Spec

			if !tt.want {
				// Nobody is waited for.
				b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
					Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
						if _, ok := o.(*v1alpha1.Repository); ok {
							t.Error("the repository was looked for")
						}

						return c.Get(ctx, k, o, opts...)
					},
				})
			}

			annotations, _ := b.run(pv)
			_, recorded := annotations[contract.AnnotationVolume]
			assert.Equal(t, tt.want, recorded)
		})
	}
}

func TestRecordsOutliveThePodsWhileVeleroFinalizes(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", selecting("data,cache,host"), ofClaim("data", "data"), emptyDir("cache"),
		corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
	b := newBench(t, claim, pv, pod)

	inVolume, _ := b.run(pv)
	inClaim, _ := b.run(claim)
	inPod, _ := b.run(pod)

	require.NoError(t, b.client.Delete(context.Background(), pod))
	b.clock.Step(time.Hour)
	b.backup.Status.Phase = velerov1.BackupPhaseFinalizing
	pod.Status.Phase = corev1.PodSucceeded

	volumeAgain, _ := b.run(pv)
	claimAgain, op := b.run(claim)
	podAgain, podOp := b.run(pod)

	assert.Equal(t, inVolume[contract.AnnotationVolume], volumeAgain[contract.AnnotationVolume])
	assert.Equal(t, inClaim[contract.AnnotationVolume], claimAgain[contract.AnnotationVolume])
	assert.Equal(t, inPod[contract.AnnotationVolumes], podAgain[contract.AnnotationVolumes])
	assert.Empty(t, op+podOp)
	assert.Len(t, b.jobs(), 2)
}
