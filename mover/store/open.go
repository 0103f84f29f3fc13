package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// The bounds of a store where Options name no others.
const (
	// DefaultRetryFor is how long a failing request is repeated.
	DefaultRetryFor = 15 * time.Minute
	// DefaultStallAfter is how long no byte may move in one attempt.
	DefaultStallAfter = 2 * time.Minute
	// defaultGrace is how long an attempt that was told to end is waited for; it is within the 30 s that a cancel may take.
	defaultGrace = 5 * time.Second
)

// Options say how a store is used. The zero Options have the default bounds, and no limits.
type Options struct {
	// RetryFor bounds the time from a request's first attempt to its last. Negative: one attempt only.
	RetryFor time.Duration
	// StallAfter is how long no byte may move in one attempt.
	StallAfter time.Duration
	// Upload and Download limit the bytes per second; nil for no limit.
	Upload, Download *Limiter
	// Counters count the traffic; nil for none.
	Counters *Counters
	// Place and Secret name the store and where its credentials are from, for
	// people: failures of the store tell them. Empty for neither.
	Place, Secret string
	// ReadOnly refuses writes and deletes, as does settings.Settings.ReadOnly.
	ReadOnly bool
	// Clock and Random are for tests; nil for the real ones.
	Clock clock.Clock
	// Random returns numbers in [0,1).
	Random func() float64
}

func (o Options) withDefaults() Options {
	if o.RetryFor == 0 {
		o.RetryFor = DefaultRetryFor
	}

	if o.StallAfter <= 0 {
		o.StallAfter = DefaultStallAfter
	}

	if o.Counters == nil {
		o.Counters = new(Counters)
	}

	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}

	if o.Random == nil {
		o.Random = rand.Float64
	}

	return o
}

// Open opens the store of one repository: folder is its path below the
// location's prefix, such as "plugins/estiba/repositories/ns/id/". Nothing
// outside that folder can be reached through what it returns. An S3 store is
// not contacted before the first request; the errors of all are *engine.Error,
// or kopia's own sentinels such as blob.ErrBlobNotFound.
func Open(ctx context.Context, s settings.Settings, source settings.Source, folder string, o Options) (blob.Storage, error) {
	if err := s.Validate(); err != nil {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "open store: %w", err)
	}

	prefix, err := folderPrefix(s.Prefix, folder)
	if err != nil {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "open store: %w", err)
	}

	s.ReadOnly = s.ReadOnly || o.ReadOnly
	o.ReadOnly = s.ReadOnly
	o = o.withDefaults()

	provider, err := openProvider(ctx, s, source, prefix, o)
	if err != nil {
		return nil, newRetrying(nil, o).locate(annotate("open store", err))
	}

	return Layer(provider, o), nil
}

func openProvider(ctx context.Context, s settings.Settings, source settings.Source, prefix string, o Options) (blob.Storage, error) {
	if s.Kind == settings.S3 {
		return openS3(s, source, prefix, o.Clock.Now)
	}

	// A folder whose server is gone does not answer, be it asked whether it is there.
	return answer(ctx, newWatched(nil, o), func(context.Context) (blob.Storage, error) {
		return openFilesystem(s, prefix, o.Clock.Now)
	})
}

// folderPrefix joins a location's prefix and a folder; the result ends with a slash.
func folderPrefix(prefix, folder string) (string, error) {
	folder = strings.Trim(folder, "/")
	if folder == "" {
		return "", fmt.Errorf("no folder is named: a store is opened for one repository")
	}

	if err := (settings.Settings{Kind: settings.Filesystem, Path: "/", Prefix: folder}).Validate(); err != nil {
		return "", fmt.Errorf("folder of a repository: %w", err)
	}

	if prefix != "" {
		folder = strings.Trim(prefix, "/") + "/" + folder
	}

	return folder + "/", nil
}

// Layer adds to a provider what every store needs. From the outside: refusal of
// odd IDs and of writes, repetition, credentials that are read again, the stall watch,
// counting and limits. Open has done it already.
func Layer(provider blob.Storage, o Options) blob.Storage {
	o = o.withDefaults()

	st := blob.Storage(&metered{Storage: provider, counters: o.Counters, up: o.Upload, down: o.Download})
	st = newWatched(st, o)

	if r, ok := provider.(renewable); ok {
		st = &renewing{Storage: st, provider: r}
	}

	st = newRetrying(st, o)

	if o.ReadOnly {
		st = readOnly{st}
	}

	return &checked{st}
}

// checked refuses IDs that no blob may have, before they reach a provider.
type checked struct{ blob.Storage }

func (c *checked) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if err := checkBlobID(id); err != nil {
		return err
	}

	return c.Storage.GetBlob(ctx, id, offset, length, out)
}

func (c *checked) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	if err := checkBlobID(id); err != nil {
		return blob.Metadata{}, err
	}

	return c.Storage.GetMetadata(ctx, id)
}

func (c *checked) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if err := checkBlobID(id); err != nil {
		return err
	}

	return c.Storage.PutBlob(ctx, id, data, o)
}

func (c *checked) DeleteBlob(ctx context.Context, id blob.ID) error {
	if err := checkBlobID(id); err != nil {
		return err
	}

	return c.Storage.DeleteBlob(ctx, id)
}

// ListBlobs lists what a page has when that has arrived; where a later one fails, so
// does the listing.
func (c *checked) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	return eachPage(ctx, c, prefix, callback)
}

func (c *checked) listPage(ctx context.Context, prefix blob.ID, after string) (page, error) {
	if !validBlobPrefix(prefix) {
		return page{}, engine.Errorf(engine.CodeInvalidRequest, "blob prefix %q is not allowed", prefix)
	}

	return listPage(ctx, c.Storage, prefix, after)
}

func (c *checked) ExtendBlobRetention(context.Context, blob.ID, blob.ExtendOptions) error {
	return blob.ErrUnsupportedObjectLock
}

// ConnectionInfo names the storage for kopia; it holds nothing to connect by.
func (c *checked) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &connectionConfig{}}
}
