package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"

	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// clientUser and clientHost name us to kopia where it asks who works with a
	// repository; one of several writers is as good as another.
	clientUser = "estiba"
	clientHost = "estiba"

	defaultMetadataCache = 256 << 20
	defaultContentCache  = 256 << 20
	// hardLimitFactor is by how much a cache may exceed its size for as long as
	// its entries are too young to be swept.
	hardLimitFactor = 2

	cacheDirMode = 0o700
)

// Settings are what it takes to open a repository.
type Settings struct {
	// Storage holds the repository and nothing else. It stays the caller's: nothing
	// here closes it.
	Storage blob.Storage
	// Password of the repository.
	Password string
	// Previous is a password that the repository may still have, while the keys of
	// repositories are being rotated; empty if there is none. See RotateKey.
	Previous string
	// Seed is what the keys of a new repository are made of, 32 random bytes or more: see
	// Create. Where it is empty, none is made.
	Seed string
	// CacheDir is an absolute path, of this repository alone, and made if missing.
	// Several processes may share it.
	CacheDir string
	// MetadataCacheBytes and ContentCacheBytes bound the caches below CacheDir; each
	// may take up to the double for a while. 0 chooses 256 MiB.
	MetadataCacheBytes, ContentCacheBytes int64
	// ReadOnly opens the repository without ever writing to the storage, which kopia
	// otherwise does even for those who only read, to tidy its indexes up.
	ReadOnly bool
	// ReadAhead is for reading much of what a snapshot holds, once, and where the
	// indexes are not too big for memory: nothing is cached on disk but what kopia
	// can't do without, and packs are read in segments (32 MiB of them at most).
	ReadAhead bool
	// User is who maintains the repository, in the eyes of kopia: USER@HOST where
	// this is given, and of no use to anything else.
	User, Host string
	// Now returns the time; nil is the clock.
	Now func() time.Time
}

// Repository is an open repository.
type Repository struct {
	repo.DirectRepository

	memory   memory
	aside    *aside
	unlisted int

	once  sync.Once
	close error
}

// Close closes the repository, and not its storage. Closing it again does nothing.
func (r *Repository) Close(ctx context.Context) error {
	r.once.Do(func() {
		if r.unlisted > 0 {
			_ = os.Unsetenv(ignoreMalformed) // It fails for names only that can't be set either.
		}

		if err := r.DirectRepository.Close(ctx); err != nil {
			r.close = engine.Errorf(engine.CodeInternal, "close repository: %w", err)
		}
	})

	return r.close
}

// Open opens a repository. Each opened one sees the store as it is now, not as
// another one has cached it.
//
// Errors: CodeRepositoryNotFound, CodeWrongKey, CodeRepositoryDamaged,
// CodeCanceled, and those of the storage.
//
// With a previous password the repository is opened by either. The current one gets a
// second try after it: the two may be rotated in between.
func Open(ctx context.Context, s Settings) (*Repository, error) {
	if s.ReadAhead {
		var err error
		if s.ReadAhead, err = indexesFit(ctx, s.Storage); err != nil {
			return nil, Explain(ctx, s.Storage, engine.CodeStoreUnavailable, fmt.Errorf("open repository: %w", err))
		}
	}

	r, err := openInsistently(ctx, s)

	for _, other := range []string{s.Previous, s.Password} {
		if s.Previous == "" || engine.CodeOf(err) != engine.CodeWrongKey {
			break
		}

		s.Password = other
		r, err = openInsistently(ctx, s)
	}

	return r, err
}

// openOn opens the repository by the password alone, without what is set aside.
func openOn(ctx context.Context, s Settings, a *aside) (*Repository, error) {
	register()

	file, err := writeConfig(s)
	if err != nil {
		return nil, engine.Errorf(engine.CodeInternal, "open repository: %w", err)
	}

	st, kept := held{a, s.CacheDir}, memory{storage: s.Storage, cache: s.CacheDir}
	if s.ReadAhead {
		kept = memory{storage: s.Storage, ahead: newReadAhead(a)}
		st = held{kept.ahead, ""}
	}

	var fatal error

	r, err := repo.Open(
		context.WithValue(ctx, heldKey{}, blob.Storage(st)), file, s.Password,
		&repo.Options{
			TimeNowFunc:          s.Now,
			DisableRepositoryLog: true,
			DoNotWaitForUpgrade:  true,
			OnFatalError:         func(err error) { fatal = err },
		})

	// kopia reads the file on opening only, and a cache is swept by size, not by hand.
	err = errors.Join(err, fatal, os.Remove(file))

	direct, ok := r.(repo.DirectRepository)
	if err == nil && !ok {
		err = fmt.Errorf("kopia has opened a %T", r)
	}

	if err != nil {
		if r != nil {
			err = errors.Join(err, r.Close(context.WithoutCancel(ctx)))
		}

		if errors.Is(err, blob.ErrBlobNotFound) && missingFormat(ctx, s.Storage) {
			err = errors.Join(repo.ErrRepositoryNotInitialized, err)
		}

		return nil, Explain(ctx, s.Storage, engine.CodeRepositoryDamaged, fmt.Errorf("open repository: %w", err))
	}

	return &Repository{DirectRepository: direct, memory: kept, aside: a}, nil
}

// writeConfig writes the description that kopia opens a repository by. It tells
// where the caches are, and nothing of the store or the password.
func writeConfig(s Settings) (_ string, err error) {
	if err := os.MkdirAll(s.CacheDir, cacheDirMode); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}

	metadata, data := orDefault(s.MetadataCacheBytes, defaultMetadataCache), orDefault(s.ContentCacheBytes, defaultContentCache)
	caching := &content.CachingOptions{
		CacheDirectory:              s.CacheDir,
		ContentCacheSizeBytes:       data,
		ContentCacheSizeLimitBytes:  hardLimitFactor * data,
		MetadataCacheSizeBytes:      metadata,
		MetadataCacheSizeLimitBytes: hardLimitFactor * metadata,
	}

	if s.ReadAhead {
		caching = &content.CachingOptions{}
	}

	lc := repo.LocalConfig{
		Storage: &blob.ConnectionInfo{Type: storageType, Config: &heldConfig{}},
		Caching: caching,
		ClientOptions: repo.ClientOptions{
			Hostname: orName(s.Host, clientHost),
			Username: orName(s.User, clientUser),
			ReadOnly: s.ReadOnly,
			// Negative: ask the store on opening, so that a wrong password or a
			// repository that is gone shows at once.
			FormatBlobCacheDuration: -1,
		},
	}

	b, err := json.Marshal(lc)
	if err != nil {
		return "", fmt.Errorf("encode connection: %w", err)
	}

	f, err := os.CreateTemp(s.CacheDir, "connection-*.json")
	if err != nil {
		return "", fmt.Errorf("write connection: %w", err)
	}

	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("write connection: %w", errors.Join(err, os.Remove(f.Name())))
	}

	return f.Name(), nil
}

// maxIndexes is the size of all index blobs, in bytes, up to which they are kept in
// memory: a million pieces and more.
const maxIndexes = 64 << 20

// indexesFit reports whether the indexes are small enough for memory.
func indexesFit(ctx context.Context, st blob.Storage) (bool, error) {
	total := int64(0)

	if err := st.ListBlobs(ctx, "x", func(m blob.Metadata) error {
		total += m.Length

		return nil
	}); err != nil {
		return false, fmt.Errorf("list indexes: %w", err)
	}

	return total <= maxIndexes, nil
}

func orDefault(v, def int64) int64 {
	if v > 0 {
		return v
	}

	return def
}

func orName(v, def string) string {
	if v != "" {
		return v
	}

	return def
}
