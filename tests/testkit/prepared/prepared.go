// Package prepared makes kopia repositories for tests that are about something
// else: they are like those of mover/repository, but for a key derivation that
// costs nothing. PBKDF2 takes 1.6 s with the race detector, on each making and
// each opening, and was nine tenths of the time of the tests of the engine. It must
// not be used where a test is about how repositories are made or opened.
package prepared

import (
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/estiba-dev/estiba/mover/repository"
)

// insecure is a derivation that kopia has only where it is built with the tag "testing".
const insecure = "testing-only-insecure"

// Repository makes a repository in a storage, unless there is one, which engine.Engine's
// CreateRepository then finds there. It does nothing where the tests are built
// without the tag "testing": they are slow then, and no less true.
func Repository(ctx context.Context, st blob.Storage, password string) error {
	if format.DefaultKeyDerivationAlgorithm != insecure {
		return nil
	}

	err := repo.Initialize(ctx, st, &repo.NewRepositoryOptions{
		BlockFormat: format.ContentFormat{
			Hash:                 "BLAKE3-256",
			Encryption:           "AES256-GCM-HMAC-SHA256",
			EnablePasswordChange: true,
		},
		ObjectFormat:                      format.ObjectFormat{Splitter: repository.Splitter},
		FormatBlockKeyDerivationAlgorithm: insecure,
	}, password)
	if err != nil && !errors.Is(err, format.ErrAlreadyInitialized) {
		return fmt.Errorf("prepare a repository: %w", err)
	}

	return nil
}
