package store

import (
	"context"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

// readOnly refuses whatever would change the store.
type readOnly struct{ blob.Storage }

func (readOnly) PutBlob(_ context.Context, id blob.ID, _ blob.Bytes, _ blob.PutOptions) error {
	return refuseWrite("put", id)
}

func (readOnly) DeleteBlob(_ context.Context, id blob.ID) error { return refuseWrite("delete", id) }

func (readOnly) ExtendBlobRetention(_ context.Context, id blob.ID, _ blob.ExtendOptions) error {
	return refuseWrite("extend the retention of", id)
}

func (r readOnly) listPage(ctx context.Context, prefix blob.ID, after string) (page, error) {
	return listPage(ctx, r.Storage, prefix, after)
}

// IsReadOnly says so.
func (readOnly) IsReadOnly() bool { return true }

func refuseWrite(verb string, id blob.ID) error {
	return engine.Errorf(engine.CodeStoreReadOnly, "%s blob %s: the store is opened for reading only", verb, id)
}
