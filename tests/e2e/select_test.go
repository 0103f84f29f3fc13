//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// createOfAllKinds makes a pod with one volume of nearly every kind there is:
// the claims named, wanted, unwanted, labelled and plain, and what follows.
func (c *cell) createOfAllKinds() *corev1.Pod {
	c.t.Helper()

	for name, change := range map[string]func(*corev1.PersistentVolumeClaim){
		"named": func(*corev1.PersistentVolumeClaim) {},
		"plain": func(*corev1.PersistentVolumeClaim) {},
		"wanted": func(p *corev1.PersistentVolumeClaim) {
			p.Annotations = map[string]string{contract.AnnotationBackup: "true"}
		},
		"unwanted": func(p *corev1.PersistentVolumeClaim) {
			p.Annotations = map[string]string{contract.AnnotationBackup: "false"}
		},
		"labelled": func(p *corev1.PersistentVolumeClaim) { p.Labels = map[string]string{"keep": "yes"} },
		"idle": func(p *corev1.PersistentVolumeClaim) {
			p.Annotations = map[string]string{contract.AnnotationBackup: "perhaps"}
		},
	} {
		claim := lab.Claim(c.namespace, name, classDelete)
		change(claim)
		require.NoError(c.t, c.Create(c.ctx, claim))
	}

	spec := lab.PodSpec([]string{"named", "plain", "wanted", "unwanted", "labelled"}, []string{"cache", "tmp", "seed"})
	app := &spec.Containers[0]
	add := func(name string, source corev1.VolumeSource) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
	}
	add("scratch", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
		VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: lab.Claim("", "", classDelete).Spec},
	}})
	add("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}})
	add("info", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}})
	add("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/usr/share"}})

	// Only an init container mounts it.
	setup := *app.DeepCopy()
	setup.Name, setup.Command, setup.VolumeMounts = "setup", []string{"true"}, []corev1.VolumeMount{{Name: "seed", MountPath: "/seed"}}
	spec.InitContainers = []corev1.Container{setup}
	app.VolumeMounts = slices.DeleteFunc(app.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "seed" })

	require.NoError(c.t, c.Create(c.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: c.namespace, Name: "all", Labels: map[string]string{"app": "all"},
		Annotations: map[string]string{contract.AnnotationBackupVolumes: " named, s* ,none", "backup.velero.io/backup-volumes-excludes": "tmp"},
	}, Spec: spec}))

	return c.ofAllKinds()
}

func (c *cell) ofAllKinds() *corev1.Pod {
	c.t.Helper()

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "all"}, 1)
	require.NoError(c.t, err)

	return &pods[0]
}

// chose requires the backup to have moved the volumes, and no others, and to say of each of the rest what became of it.
func (c *cell) chose(name string, phase velerov1.BackupPhase, moved string, says []string, args ...string) {
	c.t.Helper()

	b, err := c.Backup(c.ctx, name, append([]string{"--include-namespaces", c.namespace}, args...)...)
	require.NoError(c.t, err)
	c.requireBackup(b, phase)

	jobs, err := c.VolumeBackups(c.ctx, name)
	require.NoError(c.t, err)

	got := make([]string, 0, len(jobs))
	for _, job := range jobs {
		got = append(got, job.Spec.Volume.Name)
	}

	slices.Sort(got)
	assert.Equal(c.t, moved, strings.Join(got, " "))

	logs, err := c.Velero(c.ctx, "backup", "logs", name)
	require.NoError(c.t, err)

	for _, line := range says {
		assert.Contains(c.t, logs, line)
	}
}

func TestEachVolumeGetsAVerdictAndIsMovedOnlyIfItWasChosen(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))

	pod := c.createOfAllKinds()
	scratch, err := c.VolumeDir(c.ctx, pod, "scratch")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(scratch, "file"), []byte("of the pod that was"), 0o600))

	policy := c.namespace + "-policy"
	require.NoError(t, c.Create(c.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: policy}, Data: map[string]string{"policy.yaml": `
version: v1
volumePolicies:
- {conditions: {pvcLabels: {keep: yes}}, action: {type: custom, parameters: {mover: estiba}}}
- {conditions: {volumeTypes: [emptyDir]}, action: {type: skip}}
`}}))
	t.Cleanup(func() {
		_ = c.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: policy}})
	})

	always := []string{
		"volume wanted: to be moved: annotation estiba.dev/backup of the claim asks for it",
		"volume unwanted: excluded: annotation estiba.dev/backup of the claim excludes it",
		"volume scratch: to be moved: annotation estiba.dev/backup-volumes of pod all names it",
		"volume config: not moved: Kubernetes fills volumes of the kind configMap itself",
		"volume info: not moved: Kubernetes fills volumes of the kind downwardAPI itself",
		"volume host: not moved: a hostPath (/usr/share) is the node's",
		"annotation estiba.dev/backup-volumes names the volume \\\"none\\\", but pod all has none of that name",
		"annotation estiba.dev/backup of claim idle is \\\"perhaps\\\"",
	}
	optIn := c.namespace + "-in"

	// The claim's bad annotation alone makes each of them partially failed; no item is lost by it.
	c.chose(optIn, velerov1.BackupPhasePartiallyFailed, "labelled named scratch seed wanted", append(always,
		"volume labelled: to be moved: the backup's volume policy names Estiba",
		"volume plain: unprotected: ",
		"volume cache: excluded: the backup's volume policy says skip",
		"volume idle: not moved: ",
	), "--resource-policies-configmap", policy)
	c.chose(c.namespace+"-out", velerov1.BackupPhasePartiallyFailed, "cache labelled named plain scratch seed wanted", append(always,
		"volume plain: to be moved: everything is moved that nothing excludes",
		"volume tmp: excluded: annotation backup.velero.io/backup-volumes-excludes of pod all excludes it",
	), "--annotations", contract.AnnotationDefaultVolumes+"=opt-out")
	c.chose(c.namespace+"-fail", velerov1.BackupPhasePartiallyFailed, "named scratch seed wanted", append(always,
		"level=error msg=\"volume plain: unprotected: ",
		"annotation estiba.dev/default-volumes: \\\"all\\\" is not allowed, only opt-in, opt-out",
	), "--annotations", contract.AnnotationUnprotected+"=fail,"+contract.AnnotationDefaultVolumes+"=all")

	c.deleteNamespace()
	c.restore(c.namespace+"-r", optIn)

	pod = c.ofAllKinds()
	scratch, err = c.VolumeDir(c.ctx, pod, "scratch")
	require.NoError(t, err)

	text, err := os.ReadFile(filepath.Join(scratch, "file"))
	require.NoError(t, err, "the new pod owns a new claim, and its data is that of the old one")
	assert.Equal(t, "of the pod that was", string(text))
}
