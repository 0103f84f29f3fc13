package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

// permanent marks an error whose code is retryable for the job as a whole, and
// which yet is not worth another attempt now.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// expected are the answers that are part of kopia's use of a storage and say
// nothing about the store's health.
func expected(err error) bool {
	for _, target := range []error{
		blob.ErrBlobNotFound, blob.ErrInvalidRange, blob.ErrBlobAlreadyExists, blob.ErrNotAVolume,
		blob.ErrSetTimeUnsupported, blob.ErrUnsupportedPutBlobOption, blob.ErrUnsupportedObjectLock,
		errBeyond,
	} {
		if errors.Is(err, target) {
			return true
		}
	}

	return false
}

// retryable reports whether another attempt may succeed.
func retryable(err error) bool {
	var (
		p permanent
		e *engine.Error
	)

	return !expected(err) && !errors.As(err, &p) && errors.As(err, &e) && e.Code.Retryable()
}

// canceled is the error for work that ended because its context was done.
func canceled(ctx context.Context, what string) error {
	return engine.Errorf(engine.CodeCanceled, "%s: %w", what, context.Cause(ctx))
}

// annotate says what was attempted, and keeps the code.
func annotate(what string, err error) error {
	if err == nil || expected(err) {
		return err
	}

	var e *engine.Error
	if errors.As(err, &e) {
		return &engine.Error{Code: e.Code, Err: fmt.Errorf("%s: %w", what, err)}
	}

	return fmt.Errorf("%s: %w", what, err)
}
