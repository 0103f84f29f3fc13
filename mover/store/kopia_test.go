package store_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/store"
)

// brokered serves st over a socket pair and gives the worker's end.
func brokered(tb testing.TB, st blob.Storage, o store.BrokerOptions) *store.Client {
	tb.Helper()

	brokerEnd, workerEnd, err := store.SocketPair()
	require.NoError(tb, err)

	client, err := store.NewClient(workerEnd, store.ClientOptions{ReadOnly: o.ReadOnly})
	require.NoError(tb, err)

	served := make(chan error, 1)
	go func() { served <- store.NewBroker(st, o).Serve(context.Background(), brokerEnd) }()

	tb.Cleanup(func() {
		require.NoError(tb, client.Close(context.Background()))
		require.NoError(tb, <-served)
	})

	return client
}

func TestAKopiaRepositoryIsMadeAndOpenedOverTheSocket(t *testing.T) {
	t.Parallel()

	const password = "0123456789abcdef"

	client := brokered(t, newMemory(), store.BrokerOptions{})
	ctx := store.Carry(context.Background(), client)
	config := filepath.Join(t.TempDir(), "kopia.config")

	require.NoError(t, repo.Initialize(ctx, client, &repo.NewRepositoryOptions{}, password))
	require.NoError(t, repo.Connect(ctx, config, client, password, &repo.ConnectOptions{
		CachingOptions: content.CachingOptions{CacheDirectory: t.TempDir()},
	}))

	written, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NotContains(t, string(written), password)

	r, err := repo.Open(ctx, config, password, &repo.Options{})
	require.NoError(t, err)

	var id manifest.ID

	require.NoError(t, repo.WriteSession(ctx, r, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		var err error
		id, err = w.PutManifest(ctx, map[string]string{"type": "test"}, map[string]string{"hello": "world"})

		return err
	}))
	require.NoError(t, r.Close(ctx))
	require.NotEmpty(t, client.Written())
	require.NoError(t, client.VerifyWritten(ctx))

	again, err := repo.Open(ctx, config, password, &repo.Options{})
	require.NoError(t, err)

	defer again.Close(ctx)

	got := map[string]string{}
	_, err = again.GetManifest(ctx, id, &got)
	require.NoError(t, err)
	require.Equal(t, "world", got["hello"])
	require.NoError(t, client.Err())
}
