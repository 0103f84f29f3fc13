package backup

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// keepTime moves the clock on whenever somebody waits for it, and calls at with the time gone by.
func keepTime(t *testing.T, c *clocktesting.FakeClock, at func(gone time.Duration)) {
	t.Helper()

	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	began := c.Now()

	go func() {
		defer close(stopped)

		for ctx.Err() == nil {
			if c.HasWaiters() {
				at(c.Since(began))
				c.Step(5 * time.Second)
			}

			runtime.Gosched()
		}
	}()

	t.Cleanup(func() { cancel(); <-stopped })
}

func TestAQuiescedPodIsThawedAfterItsVolumes(t *testing.T) {
	hooks := map[string]string{
		contract.AnnotationBackupVolumes: "cache", "pre.hook.backup.velero.io/command": "freeze", "post.hook.backup.velero.io/command": "thaw",
	}

	t.Run("when they are done", func(t *testing.T) {
		pod := podWith("web", hooks, emptyDir("cache"))
		b := newBench(t, pod)
		began := b.clock.Now()

		keepTime(t, b.clock, func(gone time.Duration) {
			if gone >= time.Minute {
				b.set(v1alpha1.PhaseCompleted)
			}
		})

		_, op := b.run(pod)
		assert.NotEmpty(t, op)
		assert.GreaterOrEqual(t, b.clock.Since(began), time.Minute)
		assert.Less(t, b.clock.Since(began), 2*time.Minute)

		made := b.jobs()
		require.Len(t, made, 1)
		assert.True(t, made[0].Spec.Options.Frozen)
		assert.Equal(t, DefaultFreezeBound, made[0].Spec.Options.Deadline.Duration)
		assert.Empty(t, b.said(logrus.ErrorLevel))
	})

	t.Run("or when the bound is reached, and they are cancelled", func(t *testing.T) {
		pod := podWith("web", hooks, emptyDir("cache"))
		b := newBench(t, pod)
		began := b.clock.Now()

		keepTime(t, b.clock, func(time.Duration) {})
		b.run(pod)

		assert.Less(t, b.clock.Since(began), DefaultFreezeBound+cancelBound+time.Minute)
		assert.True(t, b.jobs()[0].Spec.Cancel)
		require.Len(t, b.said(logrus.ErrorLevel), 1)
		assert.Contains(t, b.said(logrus.ErrorLevel)[0], "are cancelled")
		assert.Contains(t, b.said(logrus.ErrorLevel)[0], contract.AnnotationFreezeTimeout)
	})

	t.Run("within the bound that the Backup sets", func(t *testing.T) {
		pod := podWith("web", hooks, emptyDir("cache"))
		b := newBench(t, pod)
		b.backup.Annotations = map[string]string{contract.AnnotationFreezeTimeout: "1h"}

		keepTime(t, b.clock, func(gone time.Duration) {
			if gone >= 50*time.Minute {
				b.set(v1alpha1.PhaseCompleted)
			}
		})
		b.run(pod)

		assert.Equal(t, time.Hour, b.jobs()[0].Spec.Options.Deadline.Duration)
		assert.False(t, b.jobs()[0].Spec.Cancel)
		assert.Empty(t, b.said(logrus.ErrorLevel))
	})
}

func TestHooksThatDoNotFreeze(t *testing.T) {
	t.Run("a pre hook alone, such as a dump, is waited for by nobody", func(t *testing.T) {
		pod := podWith("web", map[string]string{contract.AnnotationBackupVolumes: "cache", "pre.hook.backup.velero.io/command": "dump"}, emptyDir("cache"))
		b := newBench(t, pod)

		_, op := b.run(pod)
		assert.NotEmpty(t, op)
		assert.Equal(t, v1alpha1.BackupOptions{}, b.jobs()[0].Spec.Options)
	})

	t.Run("a post hook alone is held back up to the bound, and the jobs go on", func(t *testing.T) {
		pod := podWith("web", map[string]string{contract.AnnotationBackupVolumes: "cache", "post.hook.backup.velero.io/command": "clear"}, emptyDir("cache"))
		b := newBench(t, pod)
		began := b.clock.Now()

		keepTime(t, b.clock, func(time.Duration) {})

		_, op := b.run(pod)
		assert.NotEmpty(t, op)
		assert.GreaterOrEqual(t, b.clock.Since(began), DefaultFreezeBound)
		assert.Equal(t, v1alpha1.BackupOptions{}, b.jobs()[0].Spec.Options)
		assert.False(t, b.jobs()[0].Spec.Cancel)
		assert.Empty(t, b.said(logrus.ErrorLevel))
		require.Len(t, b.said(logrus.WarnLevel), 1)
		assert.Contains(t, b.said(logrus.WarnLevel)[0], "they go on")
	})
}

func TestTheWaitForAThawAsksForItsOwnJobsAndSeldom(t *testing.T) {
	pod := podWith("web", map[string]string{
		contract.AnnotationBackupVolumes: "cache", "pre.hook.backup.velero.io/command": "freeze", "post.hook.backup.velero.io/command": "thaw",
	}, emptyDir("cache"))
	b := newBench(t, pod)

	gets, lists := 0, 0
	working := b.client
	b.client = interceptor.NewClient(working.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, ok := o.(*v1alpha1.VolumeBackup); ok {
				gets++
			}

			return c.Get(ctx, k, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if _, ok := l.(*v1alpha1.VolumeBackupList); ok {
				lists++
			}

			return c.List(ctx, l, opts...)
		},
	})

	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})

	go func() {
		defer close(stopped)

		for ctx.Err() == nil {
			if b.clock.HasWaiters() {
				b.clock.Step(50 * time.Millisecond)
			}

			runtime.Gosched()
		}
	}()

	b.backup.Annotations = map[string]string{contract.AnnotationFreezeTimeout: "65s"}
	b.run(pod)
	cancel()
	<-stopped

	assert.Zero(t, lists)
	// 5 s at 150 ms, a minute at 2 s, and as much for half a minute of cancelling.
	assert.Less(t, gets, 34+30+34+13+10)
	assert.Greater(t, gets, 34+30)
}
