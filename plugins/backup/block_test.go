package backup

import (
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/operation"
)

func quiesced(name string, volumes ...corev1.Volume) *corev1.Pod {
	return podWith(name, map[string]string{
		contract.AnnotationBackupVolumes: "cache, data", "pre.hook.backup.velero.io/command": "freeze", "post.hook.backup.velero.io/command": "thaw",
	}, volumes...)
}

// Velero runs the commands of all pods of a block before it comes to the first of them, and after the last.
func TestOneBoundCountsForAllPodsThatVeleroQuiescesTogether(t *testing.T) {
	const slack = 2 * time.Minute

	shared, pv := boundClaim("data")

	for name, c := range map[string]struct {
		pods    []*corev1.Pod
		change  func(b *bench)
		takes   time.Duration
		bound   time.Duration
		failed  int
		jobs    int
		atFirst int
	}{
		"those in an order": {
			pods: []*corev1.Pod{quiesced("db-0", emptyDir("cache")), quiesced("db-1", emptyDir("cache")), quiesced("db-2", emptyDir("cache"))},
			change: func(b *bench) {
				b.backup.Spec.OrderedResources = map[string]string{"pods": "shop/db-0,shop/db-1, shop/db-2"}
			},
			takes: 8 * time.Minute, bound: 8 * time.Minute, jobs: 3, atFirst: 3,
		},
		"and none of them is ever done": {
			pods: []*corev1.Pod{quiesced("db-0", emptyDir("cache")), quiesced("db-1", emptyDir("cache")), quiesced("db-2", emptyDir("cache"))},
			change: func(b *bench) {
				b.backup.Spec.OrderedResources = map[string]string{"pods": "shop/db-0,shop/db-1,shop/db-2"}
			},
			takes: time.Hour, bound: DefaultFreezeBound + 3*cancelBound, failed: 3, jobs: 3, atFirst: 3,
		},
		"those that share a claim": {
			pods: []*corev1.Pod{
				quiesced("web-0", ofClaim("data", "data"), emptyDir("cache")), quiesced("web-1", ofClaim("data", "data"), emptyDir("cache")),
				podWith("web-2", nil, ofClaim("data", "data")),
			},
			takes: 8 * time.Minute, bound: 8 * time.Minute, jobs: 3, atFirst: 3,
		},
		"none that has nothing to do with it": {
			pods:  []*corev1.Pod{quiesced("db-0", emptyDir("cache")), quiesced("db-1", emptyDir("cache"))},
			takes: 8 * time.Minute, bound: 16 * time.Minute, jobs: 2, atFirst: 1,
		},
		"none that is not in the backup": {
			pods:   []*corev1.Pod{quiesced("db-0", emptyDir("cache")), leftOut(quiesced("db-1", emptyDir("cache")))},
			change: func(b *bench) { b.backup.Spec.OrderedResources = map[string]string{"pods": "shop/db-0,shop/db-1"} },
			takes:  8 * time.Minute, bound: 16 * time.Minute, jobs: 2, atFirst: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []client.Object{shared, pv}
			for _, pod := range c.pods {
				objects = append(objects, pod)
			}

			b := newBench(t, objects...)
			if c.change != nil {
				c.change(b)
			}

			made := map[string]time.Time{}
			atFirst := 0

			keepTime(t, b.clock, func(time.Duration) {
				b.beat()

				for _, job := range b.jobs() {
					if _, known := made[job.Name]; !known {
						made[job.Name] = b.clock.Now()
					}

					if b.clock.Since(made[job.Name]) >= c.takes && !job.Spec.Cancel {
						b.end(job)
					}
				}

				if atFirst == 0 {
					atFirst = len(made)
				}
			})

			began := b.clock.Now()

			for _, pod := range c.pods {
				b.beat()
				b.run(pod)
			}

			took := b.clock.Since(began)
			assert.GreaterOrEqual(t, took, min(DefaultFreezeBound, c.takes))
			assert.Less(t, took, c.bound+slack)
			assert.Len(t, b.jobs(), c.jobs)
			assert.Equal(t, c.atFirst, atFirst, "asked for before the first pod waits")
			assert.Len(t, b.said(logrus.ErrorLevel), c.failed)
		})
	}
}

func leftOut(pod *corev1.Pod) *corev1.Pod {
	pod.Labels = map[string]string{contract.LabelExcludeFromBackup: "true"}

	return pod
}

// beat renews the heartbeat of the node's daemon.
func (b *bench) beat() {
	lease := &coordinationv1.Lease{}
	if err := b.client.Get(b.Context(), client.ObjectKey{Namespace: "velero", Name: "estiba-node-n"}, lease); err != nil {
		b.Error(err)
	}

	lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(b.clock.Now()))
	if err := b.client.Update(b.Context(), lease); err != nil {
		b.Error(err)
	}
}

func (b *bench) end(job v1alpha1.VolumeBackup) {
	job.Status.Phase = v1alpha1.PhaseCompleted
	if err := b.client.Update(b.Context(), &job); err != nil {
		b.Error(err)
	}
}

// Whether Velero takes a CSI snapshot of a claim only the claim's own action is told.
func TestAClaimTakenByDefaultIsNotAskedForBeforeItsAction(t *testing.T) {
	for name, c := range map[string]struct {
		snapshots *bool
		early     int
	}{
		"snapshots are possible": {early: 1},
		"snapshots are off":      {snapshots: ptr.To(false), early: 2},
	} {
		t.Run(name, func(t *testing.T) {
			claim, pv := boundClaim("data")
			first, second := quiesced("db-0", emptyDir("cache")), quiesced("db-1", ofClaim("data", "data"))
			delete(second.Annotations, contract.AnnotationBackupVolumes)

			b := newBench(t, claim, pv, first, second)
			b.backup.Spec.OrderedResources = map[string]string{"pods": "shop/db-0,shop/db-1"}
			b.backup.Spec.SnapshotVolumes = c.snapshots
			b.backup.Annotations = map[string]string{contract.AnnotationDefaultVolumes: "opt-out"}

			seen := 0

			keepTime(t, b.clock, func(time.Duration) {
				seen = len(b.jobs())
				b.set(v1alpha1.PhaseCompleted)
			})

			b.run(first)
			require.Equal(t, c.early, seen)
			assert.Equal(t, c.early == 2, b.session.left(b.backup, second.UID) < DefaultFreezeBound)
		})
	}
}

// Velero leaves a pod out whose command before the backup fails. What was asked for by then has no record.
func TestJobsThatAreAskedForEarlyAreInTheBackup(t *testing.T) {
	first, second := quiesced("db-0", emptyDir("cache")), quiesced("db-1", emptyDir("cache"))
	b := newBench(t, first, second)
	b.backup.Spec.OrderedResources = map[string]string{"pods": "shop/db-0,shop/db-1"}

	keepTime(t, b.clock, func(time.Duration) { b.set(v1alpha1.PhaseCompleted) })

	_, _, op, items, err := NewPodAction(b.log, b.session).Execute(b.item(first), b.backup)
	require.NoError(t, err)

	id, err := operation.Parse(op)
	require.NoError(t, err)
	assert.Len(t, id.Jobs, 1, "each pod reports its own")

	var names []string
	for _, item := range items {
		names = append(names, item.Name)
	}

	var want []string
	for _, job := range b.jobs() {
		want = append(want, job.Name)
	}

	assert.ElementsMatch(t, want, names)
	assert.Len(t, want, 2)
}
