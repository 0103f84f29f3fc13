package podlist_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/controllers/podlist"
)

// counting returns a reader that counts the lists it is asked for.
func counting(calls *atomic.Int64, before func() error) client.Reader {
	return interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
			calls.Add(1)

			if err := before(); err != nil {
				return err
			}

			return c.List(ctx, l, o...)
		},
	})
}

func never() error { return nil }

func TestAListIsSharedAsLongAsItMayBe(t *testing.T) {
	const most, changed = 5 * time.Second, time.Second

	tests := map[string]struct {
		age     podlist.Age
		passes  time.Duration
		heard   bool
		again   bool
		isStale bool
	}{
		"right after":                             {age: podlist.Age{Most: most, Changed: changed}},
		"a little later":                          {age: podlist.Age{Most: most, Changed: changed}, passes: 4 * time.Second},
		"too late":                                {age: podlist.Age{Most: most, Changed: changed}, passes: 6 * time.Second, again: true},
		"something was heard":                     {age: podlist.Age{Most: most, Changed: changed}, passes: 2 * time.Second, heard: true, again: true},
		"something was heard, a moment later":     {age: podlist.Age{Most: most, Changed: changed}, passes: time.Second, heard: true, isStale: true},
		"by someone who wants a fresh one":        {again: true},
		"by someone who wants all that was heard": {age: podlist.Age{Most: most}, passes: time.Second, heard: true, again: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64

			clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
			lists := podlist.New(counting(&calls, never), clock)

			_, _, err := lists.In(t.Context(), "shop", podlist.Age{})
			require.NoError(t, err)

			clock.Step(tt.passes / 2)

			if tt.heard {
				lists.Changed("shop")
				lists.Changed("other")
			}

			clock.Step(tt.passes - tt.passes/2)

			_, stale, err := lists.In(t.Context(), "shop", tt.age)
			require.NoError(t, err)
			assert.Equal(t, tt.again, calls.Load() == 2)
			assert.Equal(t, tt.isStale, stale)

			_, _, err = lists.In(t.Context(), "bank", tt.age)
			require.NoError(t, err)
			assert.Equal(t, tt.again, calls.Load() == 3, "each namespace has its own")
		})
	}
}

func TestThoseWhoAskAtOnceShareOneListAndAFailureIsNobodysButItsOwn(t *testing.T) {
	var (
		calls   atomic.Int64
		entered = make(chan struct{})
		failed  = make(chan struct{})
		group   sync.WaitGroup
	)

	reader := counting(&calls, func() error {
		if calls.Load() > 1 {
			return nil
		}

		close(entered)
		<-failed

		return errors.New("hung up")
	})
	lists := podlist.New(reader, clocktesting.NewFakeClock(time.Unix(1000, 0)))
	age := podlist.Age{Most: time.Second, Changed: time.Second}

	group.Go(func() {
		_, _, err := lists.In(t.Context(), "shop", age)
		assert.ErrorContains(t, err, "hung up")
	})
	<-entered
	group.Go(func() {
		_, _, err := lists.In(t.Context(), "shop", age)
		assert.NoError(t, err)
	})
	close(failed)
	group.Wait()
	assert.EqualValues(t, 2, calls.Load())
}

func TestAListHoldsThePodsOfItsNamespace(t *testing.T) {
	c := fake.NewClientBuilder().WithObjects(
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "bank", Name: "till"}},
	).Build()

	pods, _, err := podlist.New(c, clocktesting.NewFakeClock(time.Unix(1000, 0))).In(t.Context(), "shop", podlist.Age{})
	require.NoError(t, err)
	require.Len(t, pods, 1)
	assert.Equal(t, "web", pods[0].Name)
}

func TestAListIsNotHeldForLong(t *testing.T) {
	var calls atomic.Int64

	clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
	lists := podlist.New(counting(&calls, never), clock)
	forever := podlist.Age{Most: time.Hour, Changed: time.Hour}

	for _, passes := range []time.Duration{0, time.Second, 15 * time.Second} {
		clock.Step(passes)

		_, _, err := lists.In(t.Context(), "shop", forever)
		require.NoError(t, err)
	}

	assert.Eventually(t, func() bool {
		_, _, err := lists.In(t.Context(), "shop", forever)
		return err == nil && calls.Load() == 2
	}, time.Minute, time.Millisecond)
}
