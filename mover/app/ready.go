package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

var errNotSynced = errors.New("the cache is not filled yet")

// informers are the informers of a cache.
type informers interface {
	GetInformer(ctx context.Context, o client.Object, opts ...cache.InformerGetOption) (cache.Informer, error)
}

// synced is the probe of a process that is ready when it has seen all objects of
// these kinds: before, it would take what it has not seen for what is not there.
func synced(c informers, kinds ...client.Object) healthz.Checker {
	return func(r *http.Request) error {
		for _, k := range kinds {
			i, err := c.GetInformer(r.Context(), k, cache.BlockUntilSynced(false))
			if err != nil {
				return fmt.Errorf("look at the cache of %T: %w", k, err)
			}

			if !i.HasSynced() {
				return fmt.Errorf("%T: %w", k, errNotSynced)
			}
		}

		return nil
	}
}
