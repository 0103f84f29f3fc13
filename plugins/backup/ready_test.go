package backup

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// creations returns a channel of the Repositories that are asked for.
func (b *bench) creations() <-chan string {
	made := make(chan string, 10)
	b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			err := c.Create(ctx, o, opts...)
			if repo, ok := o.(*v1alpha1.Repository); ok {
				made <- repo.Spec.Namespace
			}

			return err
		},
	})

	return made
}

// With several items at a time, one new namespace's repository is waited for while others' volumes are asked for.
func TestARepositoryThatIsBeingMadeKeepsOthersFromNothing(t *testing.T) {
	known, slow := podWith("web", selecting("cache"), emptyDir("cache")), podWith("new", selecting("cache"), emptyDir("cache"))
	slow.Namespace = "bank"
	twin := slow.DeepCopy()
	twin.Name, twin.UID = "twin", "p-twin"

	b := newBench(t, known, slow, twin)
	made := b.creations()
	ended := make(chan string, 2)

	for _, pod := range []*corev1.Pod{slow, twin} {
		item := b.item(pod)

		go func() {
			_, _, op, _, _ := NewPodAction(b.log, b.session).Execute(item, b.backup)
			ended <- op
		}()
	}

	require.Equal(t, "bank", <-made)

	_, op := b.run(known)
	assert.NotEmpty(t, op, "it would else wait until the other repository is there")
	assert.Empty(t, ended)

	repo := jobs.NewRepository("velero", "default", "bank")
	require.NoError(t, b.client.Get(t.Context(), client.ObjectKeyFromObject(repo), repo))
	repo.Status = v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryReady, ID: "bbbbbbbbbbbbbbbbbbbbbbbbbb"}
	require.NoError(t, b.client.Update(t.Context(), repo))

	assert.NotEmpty(t, <-ended)
	assert.NotEmpty(t, <-ended)
	assert.Empty(t, made, "one question served both")
}

func TestWhoHasNoTimeLeftWaitsNoLongerForARepository(t *testing.T) {
	b := newBench(t)
	made := b.creations()

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)

	go func() {
		_, err := b.session.repository(ctx, b.backup, "bank")
		ended <- err
	}()

	require.Equal(t, "bank", <-made)
	cancel()
	require.ErrorContains(t, <-ended, "repository of namespace bank")
}

func TestAStoreThatDidNotAnswerForOneVolumeIsAskedForTheNext(t *testing.T) {
	first, second := podWith("web-0", selecting("cache"), emptyDir("cache")), podWith("web-1", selecting("cache"), emptyDir("cache"))
	b := newBench(t, first, second)
	b.repository(v1alpha1.RepositoryStatus{
		Phase: v1alpha1.RepositoryNotReady, Reason: "CredentialsInvalid", Message: "refused", LastCheckedTimestamp: ptr.To(metav1.NewTime(b.clock.Now())),
	})

	_, op := b.run(first)
	assert.Empty(t, op)

	b.repository(v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryReady, ID: "abcdefghijklmnopqrstuvwxyz"})

	_, op = b.run(second)
	assert.Empty(t, op, "an error serves for a moment")

	b.clock.Step(answerMemory + time.Second)

	_, op = b.run(second)
	assert.NotEmpty(t, op, "one hiccup would cost all volumes of the namespace")
}

func TestAJobIsAskedForWhileTheStoreOfAKnownRepositoryIsAway(t *testing.T) {
	pod := podWith("web", selecting("cache"), emptyDir("cache"))
	b := newBench(t, pod)
	b.repository(v1alpha1.RepositoryStatus{
		Phase: v1alpha1.RepositoryNotReady, Reason: "StoreUnavailable", Message: "connection refused", ID: "abcdefghijklmnopqrstuvwxyz",
		LastCheckedTimestamp: ptr.To(metav1.NewTime(b.clock.Now())),
	})

	_, op := b.run(pod)
	assert.NotEmpty(t, op, "the job waits for the store by itself")
	require.Len(t, b.jobs(), 1)
}
