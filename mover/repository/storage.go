package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
)

// storageType is the name under which kopia knows a storage that a caller holds.
const storageType = "estiba-held"

// heldConfig is what kopia keeps about such a storage: nothing.
type heldConfig struct{}

type heldKey struct{}

// registration keeps kopia's table of storage types, which has no lock, from being
// written twice.
var registration sync.Once

// register has kopia take the storage from the context that a repository is
// opened with: kopia opens storages by a description in a file only.
func register() {
	registration.Do(func() {
		blob.AddSupportedStorage(storageType, heldConfig{},
			func(ctx context.Context, _ *heldConfig, _ bool) (blob.Storage, error) {
				st, ok := ctx.Value(heldKey{}).(blob.Storage)
				if !ok {
					return nil, errors.New("open storage: the context holds none")
				}

				return st, nil
			})
	})
}

// held is a storage that stays open when kopia closes the repository on it, so
// that its owner can open another one.
type held struct {
	blob.Storage

	cacheDir string
}

// ConnectionInfo names the type that register has told kopia of.
func (h held) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &heldConfig{}}
}

// Close leaves the storage to its owner.
func (h held) Close(context.Context) error { return nil }

// GetBlob makes room for the format blobs in kopia's cache: kopia replaces a file
// there with the mode of its predecessor, and where a worker may not change modes
// at all, that fails. Without a predecessor it doesn't try. It happens not only on
// opening but every 15 minutes.
func (h held) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if h.cacheDir != "" && (id == format.KopiaRepositoryBlobID || id == format.KopiaBlobCfgBlobID) {
		if err := os.Remove(filepath.Join(h.cacheDir, string(id))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("drop cached %s: %w", id, err)
		}
	}

	return h.Storage.GetBlob(ctx, id, offset, length, out)
}
