package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/errgroup"

	"github.com/estiba-dev/estiba/mover/engine"
)

// ledger is what a session has written and not removed again.
type ledger struct {
	mu    *sync.Mutex
	sizes map[blob.ID]int64
	// found are those that the store was found to have, with the sizes they had then.
	found map[blob.ID]int64
}

func newLedger() ledger {
	return ledger{mu: new(sync.Mutex), sizes: map[blob.ID]int64{}, found: map[blob.ID]int64{}}
}

func (l ledger) wrote(id blob.ID, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.sizes[id] = size
	delete(l.found, id)
}

func (l ledger) removed(id blob.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()

	delete(l.sizes, id)
	delete(l.found, id)
}

// unfound returns what nobody has looked for since it was written.
func (l ledger) unfound() map[blob.ID]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()

	all := maps.Clone(l.sizes)
	maps.DeleteFunc(all, func(id blob.ID, size int64) bool { return l.found[id] == size && size > 0 })

	return all
}

func (l ledger) find(blobs map[blob.ID]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()

	maps.Copy(l.found, blobs)
}

func (l ledger) copy() map[blob.ID]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()

	return maps.Clone(l.sizes)
}

// Written returns the IDs and sizes, in bytes, of the blobs that this Client wrote and did not delete again.
func (c *Client) Written() map[blob.ID]int64 { return c.ledger.copy() }

const (
	// askSingly is up to how many blobs are asked for one by one. A listing gives
	// a thousand a request, but of the whole repository, which may have far more.
	askSingly   = 128
	askParallel = 8
)

// VerifyWritten asks the store for every blob that this Client wrote since it was last asked, by size.
// It fails with StoreLostWrite, naming the first few, when the store
// acknowledged a blob that it does not have in full. Call it when all has been
// flushed, before a success is reported.
func (c *Client) VerifyWritten(ctx context.Context) error {
	missing := c.ledger.unfound()
	asked := maps.Clone(missing)

	if len(missing) > askSingly {
		if err := c.strikeListed(ctx, missing); err != nil {
			return err
		}
	}

	// What a listing doesn't have is asked for singly: it may only have been late.
	lost, err := c.askEach(ctx, missing)
	if err != nil {
		return err
	}

	if len(lost) == 0 {
		c.ledger.find(asked)

		return nil
	}

	const named = 5

	slices.Sort(lost)

	return c.note(engine.Errorf(engine.CodeStoreLostWrite,
		"the store acknowledged %d blobs that it does not have in full, such as %v", len(lost), lost[:min(named, len(lost))]))
}

// strikeListed takes from missing what a listing shows in full.
func (c *Client) strikeListed(ctx context.Context, missing map[blob.ID]int64) error {
	prefixes := map[blob.ID]bool{}
	for id := range missing {
		prefixes[id[:1]] = true
	}

	for prefix := range prefixes {
		err := c.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			if size, ok := missing[m.BlobID]; ok && size == m.Length {
				delete(missing, m.BlobID)
			}

			return nil
		})
		if err != nil {
			return annotate("verify what was written", err)
		}
	}

	return nil
}

// askEach returns those that are not there in full.
func (c *Client) askEach(ctx context.Context, wanted map[blob.ID]int64) ([]blob.ID, error) {
	var (
		mu   sync.Mutex
		lost []blob.ID
	)

	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askParallel)

	for id, size := range wanted {
		g.Go(func() error {
			m, err := c.GetMetadata(ctx, id)
			if err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
				return annotate("verify what was written", err)
			}

			if err != nil || m.Length != size {
				mu.Lock()
				defer mu.Unlock()

				lost = append(lost, id)
			}

			return nil
		})
	}

	err := g.Wait()

	return lost, err
}
