package store

import (
	"context"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

// renewable is a provider that can read its credentials again.
type renewable interface {
	// generation of the credentials in use.
	generation() uint64
	// renew discards the credentials of a generation; false means that there are no others.
	renew(seen uint64) bool
}

// renewing repeats once, with credentials that were read again, what the store
// refused for their sake.
type renewing struct {
	blob.Storage

	provider renewable
}

func (r *renewing) do(attempt func() error) error {
	seen := r.provider.generation()

	err := attempt()
	if engine.CodeOf(err) != engine.CodeCredentialsInvalid || !r.provider.renew(seen) {
		return err
	}

	return attempt()
}

func (r *renewing) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	return r.do(func() error {
		return r.Storage.GetBlob(ctx, id, offset, length, out)
	})
}

func (r *renewing) GetMetadata(ctx context.Context, id blob.ID) (m blob.Metadata, err error) {
	err = r.do(func() error {
		m, err = r.Storage.GetMetadata(ctx, id)

		return err
	})

	return m, err
}

func (r *renewing) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	return r.do(func() error {
		return r.Storage.PutBlob(ctx, id, data, o)
	})
}

func (r *renewing) DeleteBlob(ctx context.Context, id blob.ID) error {
	return r.do(func() error {
		return r.Storage.DeleteBlob(ctx, id)
	})
}

func (r *renewing) listPage(ctx context.Context, prefix blob.ID, after string) (p page, err error) {
	err = r.do(func() error {
		p, err = listPage(ctx, r.Storage, prefix, after)

		return err
	})

	return p, err
}
