package kopiaengine

import (
	"context"
	"log/slog"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// Config is what an engine is made of.
type Config struct {
	// Repository says how to open it. Its storage may implement Verifier, and
	// remember the failure that it has given up on in an Err() error.
	Repository repository.Settings
	// CheckpointInterval is how often an upload writes down what it has, so that
	// the next one need not read it again. 0 chooses 5 minutes; 45 are the most.
	CheckpointInterval time.Duration
	// CancelGrace is how long a cancelled backup may take to write down what it
	// has. 0 chooses 8 seconds.
	CancelGrace time.Duration
	// ProgressInterval is how often progress is told. 0 chooses 1 second.
	ProgressInterval time.Duration
	// Log is told of damage that was found and mended. Nil tells nobody.
	Log *slog.Logger
}

// Verifier is a storage that can look whether it really has what it acknowledged.
type Verifier interface {
	// VerifyWritten lists what was written through this storage and compares the
	// sizes. Its error wraps an *engine.Error of code CodeStoreLostWrite if
	// something is missing.
	VerifyWritten(ctx context.Context) error
}

const (
	defaultCheckpointInterval = 5 * time.Minute
	defaultCancelGrace        = 8 * time.Second
	defaultProgressInterval   = time.Second
)

// Engine implements engine.Engine on one repository.
type Engine struct {
	cfg Config
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine. It opens nothing: each call opens the repository for itself.
func New(cfg Config) *Engine {
	cfg.CheckpointInterval = orDefault(cfg.CheckpointInterval, defaultCheckpointInterval)
	cfg.CancelGrace = orDefault(cfg.CancelGrace, defaultCancelGrace)
	cfg.ProgressInterval = orDefault(cfg.ProgressInterval, defaultProgressInterval)

	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	if cfg.Repository.Now == nil {
		cfg.Repository.Now = time.Now
	}

	return &Engine{cfg: cfg}
}

func orDefault(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}

	return def
}

// CreateRepository implements engine.Engine.
func (e *Engine) CreateRepository(ctx context.Context, f engine.Format) error {
	return repository.Create(ctx, e.cfg.Repository, f)
}

// RotateKey implements engine.Engine.
func (e *Engine) RotateKey(ctx context.Context) error {
	return repository.RotateKey(ctx, e.cfg.Repository)
}

func (e *Engine) storage() blob.Storage { return e.cfg.Repository.Storage }

// explain sets the code of err, see repository.Explain, and a message of
// bounded length.
func (e *Engine) explain(ctx context.Context, otherwise engine.Code, err error) error {
	return shorten(repository.Explain(ctx, e.storage(), otherwise, err))
}
