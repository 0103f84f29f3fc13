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

	"github.com/estiba-dev/estiba/mover/contract"
)

// Velero's error says no more than that a pod of node-agent was not found.
func TestAPodThatVeleroLeavesOutIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *velerov1.Backup, p *corev1.Pod)
		policy string
		agent  bool
		says   string
	}{
		"all is to be taken":   {change: func(b *velerov1.Backup, _ *corev1.Pod) { b.Spec.DefaultVolumesToFsBackup = ptr.To(true) }, says: "volumes cache, data "},
		"the pod names one":    {change: func(_ *velerov1.Backup, p *corev1.Pod) { p.Annotations["backup.velero.io/backup-volumes"] = "data" }, says: "volumes data "},
		"the policy names one": {policy: "volumePolicies: [{conditions: {volumeTypes: [emptyDir]}, action: {type: fs-backup}}]", says: "volumes cache "},
		"the policy says otherwise": {
			change: func(b *velerov1.Backup, _ *corev1.Pod) { b.Spec.DefaultVolumesToFsBackup = ptr.To(true) },
			policy: "volumePolicies: [{conditions: {volumeTypes: [emptyDir]}, action: {type: skip}}]", says: "volumes data ",
		},
		"nothing is to be taken": {},
		"a pod that doesn't run": {change: func(b *velerov1.Backup, p *corev1.Pod) {
			b.Spec.DefaultVolumesToFsBackup, p.Status.Phase = ptr.To(true), corev1.PodPending
		}},
		"the agent is there": {change: func(b *velerov1.Backup, _ *corev1.Pod) { b.Spec.DefaultVolumesToFsBackup = ptr.To(true) }, agent: true},
	} {
		t.Run(name, func(t *testing.T) {
			claim, pv := boundClaim("data")
			pod := podWith("web", selecting("cache"), emptyDir("cache"), ofClaim("data", "data"), corev1.Volume{
				Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}},
			})
			objects := []client.Object{claim, pv, pod, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "policy"}, Data: map[string]string{"p": "version: v1\n" + c.policy},
			}}

			if c.agent {
				objects = append(objects, &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: "node-agent-x", Labels: map[string]string{agentLabel: agentRole}},
					Spec:       corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
				})
			}

			b := newBench(t)
			if c.change != nil {
				c.change(b.backup, pod)
			}

			spec := b.backup.Spec
			b = newBench(t, objects...)
			b.backup.Spec = spec
			b.backup.Spec.ResourcePolicy = &corev1.TypedLocalObjectReference{Kind: "configmap", Name: "policy"}

			annotations, op := b.run(pod)

			var said []string

			for _, line := range b.said(logrus.WarnLevel) {
				if len(line) > 6 && line[:6] == "Velero" {
					said = append(said, line)
				}
			}

			if c.says == "" {
				assert.Empty(t, said)

				return
			}

			require.Len(t, said, 1)
			assert.Contains(t, said[0], "leaves pod web out of the backup")
			assert.Contains(t, said[0], c.says)
			assert.Contains(t, said[0], "on node n; take")
			assert.NotEmpty(t, annotations[contract.AnnotationVolumes])
			assert.NotEmpty(t, op, "the operation's jobs are in the backup, for its deletion to find their snapshots")
		})
	}
}
