package state

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

func TestABackupWithoutANodeGoesToItsPods(t *testing.T) {
	t.Parallel()

	job := &v1alpha1.VolumeBackup{}
	job.Spec.Volume.Namespace = "app"
	job.Spec.Volume.Pod = v1alpha1.PodReference{Name: "web-0", UID: "u"}

	for name, test := range map[string]struct {
		pod    *TargetPod
		node   string
		reason string
	}{
		"the pod runs":             {pod: &TargetPod{UID: "u", Node: "n1"}, node: "n1"},
		"the pod does not exist":   {reason: ReasonPodNotFound},
		"the pod is another one":   {pod: &TargetPod{UID: "x", Node: "n1"}, reason: ReasonPodReplaced},
		"the pod waits for a node": {pod: &TargetPod{UID: "u"}, reason: ReasonPodUnscheduled},
		"the pod has ended":        {pod: &TargetPod{UID: "u", Node: "n1", Finished: true}, reason: ReasonPodNotRunning},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			node, f := RouteBackup(job, test.pod)
			assert.Equal(t, test.node, node)

			if test.reason == "" {
				assert.Nil(t, f)

				return
			}

			assert.Equal(t, test.reason, f.Reason)
			assert.Contains(t, f.Message, "app/web-0")
			assert.Contains(t, f.Message, "back it up")
		})
	}
}
