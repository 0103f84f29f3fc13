package target_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/target"
)

func TestWithoutStandIn(t *testing.T) {
	t.Parallel()

	claim := metav1.OwnerReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: "data", UID: "claim"}
	other := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "mine", UID: "other"}
	controller := func(kind string) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "apps/v1", Kind: kind, Name: "web", UID: "controller", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}
	}
	released := controller("ReplicaSet")
	released.Controller = ptr.To(false)
	own := claim
	own.Controller = ptr.To(true)

	type refs = []metav1.OwnerReference

	const ours = "velero"

	for name, c := range map[string]struct {
		owners refs
		record func(*contract.GateRecord)
		pod    func(*corev1.Pod)
		want   refs
	}{
		"adopted by a ReplicaSet":                    {owners: refs{claim, controller("ReplicaSet")}, want: refs{controller("ReplicaSet")}},
		"adopted by a StatefulSet":                   {owners: refs{claim, controller("StatefulSet")}, want: refs{controller("StatefulSet")}},
		"adopted by a Job":                           {owners: refs{claim, controller("Job")}, want: refs{controller("Job")}},
		"adopted, with the controller first":         {owners: refs{controller("Job"), claim}, want: refs{controller("Job")}},
		"adopted, beside an owner of its own":        {owners: refs{claim, other, controller("Job")}, want: refs{other, controller("Job")}},
		"adopted, and past its gate":                 {owners: refs{claim, controller("Job")}, pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }, want: refs{controller("Job")}},
		"not adopted yet":                            {owners: refs{claim}},
		"not adopted, beside an owner of its own":    {owners: refs{claim, other}},
		"released by its controller":                 {owners: refs{claim, released}},
		"adopted and done":                           {owners: refs{controller("ReplicaSet")}},
		"adopted and done, with an owner of its own": {owners: refs{other, controller("ReplicaSet")}},
		"restored with no owner in place of another": {owners: refs{claim, controller("ReplicaSet")}, record: func(r *contract.GateRecord) { r.StandIn = "" }},
		"an owner of another UID":                    {owners: refs{claim, controller("ReplicaSet")}, record: func(r *contract.GateRecord) { r.StandIn = "before" }},
		"its controller is what stood in for it":     {owners: refs{own, other}},
		"restored by another install":                {owners: refs{claim, controller("ReplicaSet")}, record: func(r *contract.GateRecord) { r.VeleroNamespace = "backup" }},
		"being deleted":                              {owners: refs{claim, controller("ReplicaSet")}, pod: func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }},
		"a record that can't be read":                {owners: refs{claim, controller("ReplicaSet")}, pod: func(p *corev1.Pod) { p.Annotations[contract.AnnotationRestore] = "{" }},
		"no record":                                  {owners: refs{claim, controller("ReplicaSet")}, pod: func(p *corev1.Pod) { p.Annotations = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			record := contract.GateRecord{Restore: contract.Owner{Name: "r", UID: "u"}, VeleroNamespace: ours, StandIn: "claim"}
			if c.record != nil {
				c.record(&record)
			}

			text, err := record.Encode()
			require.NoError(t, err)

			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Name: "web", Annotations: map[string]string{contract.AnnotationRestore: text}, OwnerReferences: c.owners,
			}}
			if c.pod != nil {
				c.pod(pod)
			}

			before := pod.DeepCopy()
			got, adopted := target.WithoutStandIn(pod, ours)
			assert.Equal(t, c.want != nil, adopted)
			assert.Equal(t, before, pod, "it may lie in a cache")

			if adopted {
				assert.Equal(t, c.want, got)
			}
		})
	}
}
