package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"

	"github.com/estiba-dev/estiba/mover/engine"
)

// The folders of kopia's caches that keep answers of the store as they came.
const (
	cachedIndexes  = "index-blobs"
	cachedMetadata = "metadata"
	cachedContents = "contents"
)

// memory is what was kept of the store's answers. What was read is checked when it is used, and it
// is kept before: one bad answer would be the answer for as long as it is kept.
type memory struct {
	ahead   *readAhead
	cache   string
	storage blob.Storage
}

// askAgain reports whether what failed is worth another request. A storage that has given up has
// asked often enough, and what the index doesn't know is not asked for at all.
func (m memory) askAgain(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) && StorageErr(m.storage) == nil &&
		!errors.Is(err, content.ErrContentNotFound) && !errors.Is(err, manifest.ErrNotFound)
}

// forgetAll forgets all that is in some of the caches.
func (m memory) forgetAll(caches ...string) {
	if m.ahead != nil {
		m.ahead.forget()
	}

	if m.cache == "" {
		return
	}

	for _, c := range caches {
		// What can't be removed is no worse than before.
		_ = filepath.WalkDir(filepath.Join(m.cache, c), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !strings.HasPrefix(d.Name(), ".") {
				_ = os.Remove(path) //nolint:gosec // The cache is this process's own.
			}

			return nil
		})
	}
}

// forget forgets what was kept of an object.
func (m memory) forget(ctx context.Context, rep asked, id object.ID) {
	if m.ahead != nil {
		m.ahead.forget()
	}

	if m.cache == "" {
		return
	}

	for index, ok := id, true; ok; index, ok = index.IndexObjectID() {
		if c, _, direct := index.ContentID(); direct {
			m.forgetContent(ctx, rep, c)
		}
	}

	// Where the list of the pieces is what can't be read, there is nothing to be forgotten of them.
	pieces, _ := rep.VerifyObject(ctx, id)
	for _, c := range pieces {
		m.forgetContent(ctx, rep, c)
	}
}

func (m memory) forgetContent(ctx context.Context, rep asked, id content.ID) {
	i, err := rep.ContentInfo(ctx, id)
	if err != nil {
		return
	}

	pack := string(i.PackBlobID)
	if pack == "" {
		return
	}

	key := fmt.Sprintf("%v.%x.%x.%x", i.ContentID, i.CompressionHeaderID, i.FormatVersion, i.EncryptionKeyID)
	if key[0] >= 'g' && key[0] <= 'z' {
		key = key[1:] + key[:1]
	}

	// Whole packs are kept as well as single pieces of them.
	m.remove(cachedMetadata, pack[1:]+pack[:1])
	m.remove(cachedContents, pack[1:]+pack[:1])
	m.remove(cachedContents, key)
}

// remove removes an entry of a cache, which may not be there.
func (m memory) remove(cache, key string) {
	const shard = 2

	if len(key) > shard {
		_ = os.Remove(filepath.Join(m.cache, cache, key[:shard], key[shard:]+".f"))
	}
}

// asked is the part of a repository that reads.
type asked interface {
	OpenObject(ctx context.Context, id object.ID) (object.Reader, error)
	VerifyObject(ctx context.Context, id object.ID) ([]content.ID, error)
	ContentInfo(ctx context.Context, id content.ID) (content.Info, error)
	GetManifest(ctx context.Context, id manifest.ID, data any) (*manifest.EntryMetadata, error)
	FindManifests(ctx context.Context, labels map[string]string) ([]*manifest.EntryMetadata, error)
}

// insistent asks the store once more for what can't be read, with nothing that was kept of the
// first answer: a bit may have been flipped on the way. What is bad twice is damaged.
type insistent struct {
	asked

	memory memory
}

// OpenObject opens an object for reading.
func (r insistent) OpenObject(ctx context.Context, id object.ID) (object.Reader, error) {
	opened, err := twice(ctx, r.memory, func() (object.Reader, error) { return r.asked.OpenObject(ctx, id) },
		func() { r.memory.forget(ctx, r.asked, id) })
	if err != nil {
		return nil, err
	}

	return &insistentReader{Reader: opened, ctx: ctx, from: r, id: id}, nil
}

// VerifyObject returns the contents of an object, which are all known.
func (r insistent) VerifyObject(ctx context.Context, id object.ID) ([]content.ID, error) {
	return twice(ctx, r.memory, func() ([]content.ID, error) { return r.asked.VerifyObject(ctx, id) },
		func() { r.memory.forget(ctx, r.asked, id) })
}

// GetManifest reads a manifest.
func (r insistent) GetManifest(ctx context.Context, id manifest.ID, data any) (*manifest.EntryMetadata, error) {
	return twice(ctx, r.memory, func() (*manifest.EntryMetadata, error) { return r.asked.GetManifest(ctx, id, data) },
		func() { r.memory.forgetAll(cachedMetadata) })
}

// FindManifests lists the manifests with the labels.
func (r insistent) FindManifests(ctx context.Context, labels map[string]string) ([]*manifest.EntryMetadata, error) {
	return twice(ctx, r.memory, func() ([]*manifest.EntryMetadata, error) { return r.asked.FindManifests(ctx, labels) },
		func() { r.memory.forgetAll(cachedMetadata) })
}

// twice reads once more if the first time failed with what may be a bad answer.
func twice[T any](ctx context.Context, m memory, read func() (T, error), forget func()) (T, error) {
	v, err := read()
	if !m.askAgain(ctx, err) {
		return v, err
	}

	forget()

	return read()
}

// insistentReader reads an object from where its first reader failed with another one.
type insistentReader struct {
	object.Reader

	ctx  context.Context //nolint:containedctx // io.Reader has no place for it.
	from insistent
	id   object.ID
	at   int64
}

// Read implements io.Reader.
func (r *insistentReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n == 0 && r.from.memory.askAgain(r.ctx, err) {
		if e := r.reopen(); e != nil {
			return 0, errors.Join(err, e)
		}

		n, err = r.Reader.Read(p)
	}

	r.at += int64(n)

	return n, err
}

// Seek implements io.Seeker. kopia reads the piece that it comes to.
func (r *insistentReader) Seek(offset int64, whence int) (int64, error) {
	at, err := r.Reader.Seek(offset, whence)
	if r.from.memory.askAgain(r.ctx, err) {
		if e := r.reopen(); e != nil {
			return 0, errors.Join(err, e)
		}

		at, err = r.Reader.Seek(offset, whence)
	}

	if err == nil {
		r.at = at
	}

	return at, err
}

func (r *insistentReader) reopen() error {
	r.from.memory.forget(r.ctx, r.from.asked, r.id)

	fresh, err := r.from.asked.OpenObject(r.ctx, r.id)
	if err != nil {
		return err
	}

	if _, err := fresh.Seek(r.at, io.SeekStart); err != nil {
		return errors.Join(err, fresh.Close())
	}

	_ = r.Close() // It was open for reading.
	r.Reader = fresh

	return nil
}

func (r *Repository) insist() insistent { return insistent{r.DirectRepository, r.memory} }

// OpenObject opens an object for reading; see insistent.
func (r *Repository) OpenObject(ctx context.Context, id object.ID) (object.Reader, error) {
	return r.insist().OpenObject(ctx, id)
}

// VerifyObject returns the contents of an object, which are all known; see insistent.
func (r *Repository) VerifyObject(ctx context.Context, id object.ID) ([]content.ID, error) {
	return r.insist().VerifyObject(ctx, id)
}

// GetManifest reads a manifest; see insistent.
func (r *Repository) GetManifest(ctx context.Context, id manifest.ID, data any) (*manifest.EntryMetadata, error) {
	return r.insist().GetManifest(ctx, id, data)
}

// FindManifests lists the manifests with the labels; see insistent.
func (r *Repository) FindManifests(ctx context.Context, labels map[string]string) ([]*manifest.EntryMetadata, error) {
	return r.insist().FindManifests(ctx, labels)
}

// Refresh reads the indexes anew, those that can't be read once more.
func (r *Repository) Refresh(ctx context.Context) error {
	_, err := twice(ctx, r.memory, func() (struct{}, error) { return struct{}{}, r.DirectRepository.Refresh(ctx) },
		func() { r.memory.forgetAll(cachedIndexes) })

	return err
}

// NewWriter begins a session that writes, and reads as the repository does.
func (r *Repository) NewWriter(ctx context.Context, o repo.WriteSessionOptions) (context.Context, repo.RepositoryWriter, error) {
	ctx, w, err := r.DirectRepository.NewWriter(ctx, o)
	if err != nil {
		return ctx, nil, err
	}

	return ctx, &writer{w, insistent{w, r.memory}}, nil
}

// writer is a session of a Repository.
type writer struct {
	repo.RepositoryWriter

	reads insistent
}

// OpenObject opens an object for reading; see insistent.
func (w *writer) OpenObject(ctx context.Context, id object.ID) (object.Reader, error) {
	return w.reads.OpenObject(ctx, id)
}

// VerifyObject returns the contents of an object, which are all known; see insistent.
func (w *writer) VerifyObject(ctx context.Context, id object.ID) ([]content.ID, error) {
	return w.reads.VerifyObject(ctx, id)
}

// GetManifest reads a manifest; see insistent.
func (w *writer) GetManifest(ctx context.Context, id manifest.ID, data any) (*manifest.EntryMetadata, error) {
	return w.reads.GetManifest(ctx, id, data)
}

// FindManifests lists the manifests with the labels; see insistent.
func (w *writer) FindManifests(ctx context.Context, labels map[string]string) ([]*manifest.EntryMetadata, error) {
	return w.reads.FindManifests(ctx, labels)
}

// openInsistently opens the repository by the password alone, and once more where it is damaged or
// the key is wrong by one answer of the store. An index blob that is damaged doesn't keep it
// from that: the repository is then open without what is in it.
func openInsistently(ctx context.Context, s Settings) (*Repository, error) {
	a, m := newAside(s.Storage), memory{storage: s.Storage, cache: s.CacheDir}

	r, err := openOn(ctx, s, a)

	switch engine.CodeOf(err) {
	case engine.CodeRepositoryDamaged, engine.CodeWrongKey:
		if m.askAgain(ctx, err) {
			m.forgetAll(cachedIndexes)

			r, err = openOn(ctx, s, a)
		}
	default:
	}

	if engine.CodeOf(err) != engine.CodeRepositoryDamaged || !m.askAgain(ctx, err) {
		return r, err
	}

	if n, search := a.search(ctx, s); n == 0 || search != nil {
		return nil, Explain(ctx, s.Storage, engine.CodeRepositoryDamaged, errors.Join(err, search))
	}

	return openOn(ctx, s, a)
}
