//go:build e2e && slow

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// A store that is restarted, and one that hangs for a while, cost the time that they are away and nothing else.
func TestSlowAStoreThatGoesAwayInTheMiddleIsWaitedFor(t *testing.T) {
	c := open(t)
	kept := c.keepVolume(c.bigPod(90, 32<<20))
	store := c.relayed()
	lift := c.limit(slow, "--store-stall-timeout=2s")
	c.uploading()

	for _, m := range []manner{away, mute} {
		store.be(m)
		c.tried(store, 2)
		store.be(passing)
	}

	b, err := c.WaitBackup(c.ctx, c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)
	assert.EqualValues(t, 1, c.completed(c.namespace, 1)[0].Status.Attempts, "the requests were repeated, not the backup")

	lift()
	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)
	c.sameDir(kept, c.volume(c.podAgain()))
}

func TestSlowAStoreThatNeverAnswersEndsABackupWithAReason(t *testing.T) {
	c := open(t)
	c.bigPod(91, 32<<20)
	store := c.relayed()
	c.limit(slow, "--store-stall-timeout=2s", "--store-retry-timeout=6s", "--attempts=1")
	c.uploading()

	store.be(mute)

	start := time.Now()
	job := c.ended(c.namespace, "data")
	assert.Less(t, time.Since(start), 40*time.Second, "6 s, and the request that was under way")

	store.be(passing)

	assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
	assert.Equal(t, "StoreStalled", job.Status.Reason, job.Status.Message)
	assert.Contains(t, job.Status.Message, c.namespace, "the location is named")
	assert.Contains(t, c.endsPartial(c.namespace), "StoreStalled")
	c.podAgain()
}
