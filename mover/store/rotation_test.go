package store_test

import (
	"context"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// account makes or deletes an account of the server at an address.
func account(t *testing.T, address string, args ...string) {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), gatewayProgram(t), append([]string{
		"admin", "--access", accessKey, "--secret", secretKey, "--endpoint-url", "http://" + address,
	}, args...)...)

	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// A worker's client goes on over the same socket, while the broker's account is
// exchanged for another one and deleted.
func TestCredentialsThatAreRotatedInTheMiddleOfAJob(t *testing.T) {
	t.Parallel()

	address := gateway(t, "--iam-dir", t.TempDir(), "--iam-cache-disable")
	account(t, address, "create-user", "--access", "first", "--secret", "first-secret", "--role", "admin")
	account(t, address, "create-user", "--access", "second", "--secret", "second-secret", "--role", "admin")

	var (
		ctx     = context.Background()
		current atomic.Pointer[settings.Credentials]
		asked   atomic.Int64
	)

	current.Store(&settings.Credentials{AccessKeyID: "first", SecretAccessKey: "first-secret"})

	client := brokered(t, openS3(t, address, settings.SourceFunc(func(context.Context) (settings.Credentials, error) {
		asked.Add(1)

		return *current.Load(), nil
	}), store.Options{}), store.BrokerOptions{})

	require.NoError(t, client.PutBlob(ctx, "p1", store.Memory("one"), blob.PutOptions{}))

	current.Store(&settings.Credentials{AccessKeyID: "second", SecretAccessKey: "second-secret"})
	account(t, address, "delete-user", "--access", "first")

	require.NoError(t, client.PutBlob(ctx, "p2", store.Memory("two"), blob.PutOptions{}))

	var (
		out   store.Buffer
		found []blob.ID
	)

	require.NoError(t, client.GetBlob(ctx, "p1", 0, -1, &out))
	assert.Equal(t, "one", string(out.Bytes()))
	require.NoError(t, client.ListBlobs(ctx, "", func(m blob.Metadata) error {
		found = append(found, m.BlobID)

		return nil
	}))
	assert.ElementsMatch(t, []blob.ID{"p1", "p2"}, found)
	require.NoError(t, client.VerifyWritten(ctx))
	require.NoError(t, client.Err())
	assert.Equal(t, int64(2), asked.Load(), "once at first, and once when they were refused")
}

func TestCredentialsThatAreAboutToExpireAreExchangedBefore(t *testing.T) {
	t.Parallel()

	var (
		ctx   = context.Background()
		asked atomic.Int64
		o     = quick()
		begun = time.Now()
		c     = clocktesting.NewFakeClock(begun)
	)

	o.Clock = c

	s, err := store.OpenObjects(s3Settings(gateway(t)), settings.SourceFunc(func(context.Context) (settings.Credentials, error) {
		asked.Add(1)

		return settings.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, Expires: c.Now().Add(time.Hour)}, nil
	}), o)
	require.NoError(t, err)

	for _, step := range []struct {
		later time.Duration
		asked int64
	}{{0, 1}, {54 * time.Minute, 1}, {56 * time.Minute, 2}, {100 * time.Minute, 2}, {112 * time.Minute, 3}} {
		c.SetTime(begun.Add(step.later))

		_, err := s.List(ctx, "")
		require.NoError(t, err)
		assert.Equal(t, step.asked, asked.Load(), "after %s", step.later)
	}
}
