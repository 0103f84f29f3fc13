package backup

import (
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

func configured(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "velero", Name: name, Labels: map[string]string{contract.LabelPluginConfig: ""},
	}, Data: data}
}

func TestTheSettingsSayWhatBecomesOfVolumesThatNobodyNames(t *testing.T) {
	for name, tt := range map[string]struct {
		objects     []client.Object
		annotations map[string]string
		moved       int
		errors      []string
		warnings    []string
	}{
		"without settings": {warnings: []string{"volume data: unprotected: no annotation"}},
		"opt-out":          {objects: []client.Object{configured("estiba", map[string]string{"default-volumes": "opt-out"})}, moved: 2},
		"opt-out, and opt-in for this backup": {
			objects:     []client.Object{configured("estiba", map[string]string{"default-volumes": "opt-out"})},
			annotations: map[string]string{contract.AnnotationDefaultVolumes: "opt-in"}, warnings: []string{"volume data: unprotected: no annotation"},
		},
		"opt-out for this backup": {annotations: map[string]string{contract.AnnotationDefaultVolumes: "opt-out"}, moved: 2},
		"nothing may be left unprotected": {
			annotations: map[string]string{contract.AnnotationUnprotected: "fail"}, errors: []string{"volume data: unprotected: no annotation"},
		},
		"a value that is not allowed": {
			annotations: map[string]string{contract.AnnotationDefaultVolumes: "all"},
			errors:      []string{`Backup nightly, annotation estiba.dev/default-volumes: "all" is not allowed, only opt-in, opt-out; it counts as opt-in`},
			warnings:    []string{"volume data: unprotected: no annotation"},
		},
		"two ConfigMaps, and a key that means nothing": {
			objects:     []client.Object{configured("a", map[string]string{"x": "y"}), configured("b", nil)},
			annotations: map[string]string{contract.AnnotationDefaultVolumes: "opt-out"}, moved: 2,
			errors: []string{"more than one ConfigMap bears the label estiba.dev/plugin-config: velero/a, velero/b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			claim, pv := boundClaim("data")
			pod := podWith("web", nil, ofClaim("data", "data"), emptyDir("cache"))
			b := newBench(t, append(tt.objects, claim, pv, pod)...)
			b.backup.Annotations = tt.annotations

			for _, object := range []client.Object{pv, claim, pod} {
				b.run(object)
			}

			assert.Len(t, b.jobs(), tt.moved)
			requireSaid(t, tt.errors, b.said(logrus.ErrorLevel))
			requireSaid(t, tt.warnings, b.said(logrus.WarnLevel))
		})
	}
}

// requireSaid wants exactly these lines, of which only the beginnings are given.
func requireSaid(t *testing.T, want, got []string) {
	t.Helper()
	require.Len(t, got, len(want), "%v", got)

	for i := range want {
		assert.Contains(t, got[i], want[i])
	}
}

func TestAPodLeavesAClaimToTheSnapshotThatOnlyTheClaimsActionIsToldOf(t *testing.T) {
	claim, pv := boundClaim("data")
	pod := podWith("web", nil, ofClaim("data", "data"))
	b := newBench(t, claim, pv, pod)
	b.backup.Annotations = map[string]string{contract.AnnotationDefaultVolumes: "opt-out"}

	marked := claim.DeepCopy()
	marked.Labels = map[string]string{"velero.io/backup-name": "nightly"}
	marked.Annotations = map[string]string{"velero.io/volume-snapshot-name": "s"}
	b.run(marked)
	b.run(pod)

	assert.Empty(t, b.jobs())
	assert.Contains(t, b.said(logrus.InfoLevel), "volume data: left to a snapshot: Velero has taken a CSI snapshot of it")
	assert.Empty(t, b.said(logrus.WarnLevel))
}

func TestAVolumeIsLeftToASnapshotterOnlyIfThereIsOneForIt(t *testing.T) {
	location := &velerov1.VolumeSnapshotLocation{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "ebs"}}
	location.Spec.Provider = "velero.io/aws"

	for off, moved := range map[bool]int{false: 0, true: 1} {
		claim, pv := boundClaim("data")
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com"}
		b := newBench(t, claim, pv, podWith("web", nil, ofClaim("data", "data")), location.DeepCopy())
		b.backup.Annotations = map[string]string{contract.AnnotationDefaultVolumes: "opt-out"}
		b.backup.Spec.VolumeSnapshotLocations = []string{"ebs", "gone"}
		b.backup.Spec.SnapshotVolumes = ptr.To(!off)
		b.run(claim)
		assert.Len(t, b.jobs(), moved)
	}
}

func TestAGenericEphemeralVolumeIsMovedAsAClaimOfItsWorkload(t *testing.T) {
	claim, pv := boundClaim("web-abc-scratch")
	pod := podWith("web-abc", selecting("scratch"), corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}})
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "web", UID: "d", Controller: ptr.To(true)}}
	claim.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "web-abc", UID: pod.UID, Controller: ptr.To(true)}}
	b := newBench(t, claim, pv, pod)

	annotations, _ := b.run(claim)
	record, _ := b.run(pod)

	made := b.jobs()
	require.Len(t, made, 1)
	assert.Equal(t, v1alpha1.VolumePersistentVolumeClaim, made[0].Spec.Volume.Kind)
	assert.Equal(t, "/daemonset/web/scratch", made[0].Spec.Source.Path, "what stays when the pod, and so the claim, is another")
	assert.Contains(t, annotations, contract.AnnotationVolume)
	assert.Contains(t, record[contract.AnnotationVolumes], `"scratch":`)
}

func TestInlineVolumesAreNamedByTheirKind(t *testing.T) {
	pod := podWith("web", selecting("*"),
		corev1.Volume{Name: "share", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/p"}}},
		corev1.Volume{Name: "inline", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "hostpath.csi.k8s.io"}}},
		corev1.Volume{Name: "vault", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "secrets-store.csi.k8s.io"}}},
		corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/data"}}},
		corev1.Volume{Name: "etc", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}}})
	b := newBench(t, pod, configured("estiba", map[string]string{"host-path-prefixes": "/srv"}))
	b.run(pod)

	kinds := map[string]v1alpha1.VolumeKind{}
	for _, job := range b.jobs() {
		kinds[job.Spec.Volume.Name] = job.Spec.Volume.Kind
	}

	assert.Equal(t, map[string]v1alpha1.VolumeKind{"share": v1alpha1.VolumeNFS, "inline": v1alpha1.VolumeCSI, "host": v1alpha1.VolumeHostPath}, kinds)
}
