package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/worker"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// newEngine makes the engine of a worker, which stands behind all its fences by now.
func newEngine(ctx context.Context, s worker.Settings) (engine.Engine, error) {
	client, err := store.NewClient(s.Storage, store.ClientOptions{ReadOnly: readOnly(s.Verb)})
	if err != nil {
		return nil, fmt.Errorf("open the storage that the daemon serves: %w", err)
	}

	return &workerEngine{
		Engine: kopiaengine.New(kopiaengine.Config{Repository: repository.Settings{
			Storage: client, Password: s.Password, Previous: s.Previous, Seed: s.Seed, CacheDir: s.Cache.Dir,
			MetadataCacheBytes: s.Cache.MetadataBytes, ContentCacheBytes: s.Cache.ContentBytes,
		}, Log: s.Log}),
		close: func() error { return client.Close(ctx) },
	}, nil
}

// readOnly reports whether the verb needs to write nothing.
func readOnly(v protocol.Verb) bool {
	return v == protocol.VerbRestore || v == protocol.VerbList || v == protocol.VerbOpenRepository
}

// workerEngine closes the storage with the engine.
type workerEngine struct {
	*kopiaengine.Engine
	close func() error
}

// Close closes the storage.
func (e *workerEngine) Close() error {
	if err := e.close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the storage: %w", err)
	}

	return nil
}
