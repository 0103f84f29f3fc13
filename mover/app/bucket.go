package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/controllers/cluster"
	"github.com/estiba-dev/estiba/mover/credentials"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
)

const (
	// bucketRetry and bucketStall bound what the controller itself asks of a
	// store: the reconciles of all locations wait in one line, and come again.
	bucketRetry = 3 * time.Second
	bucketStall = 15 * time.Second
	// awayFactor is for how many times as long as a store has kept somebody
	// waiting in vain it is not asked again: one that refuses at once may be asked
	// at once, and one that hangs takes no more than a fifth of the controller's time.
	awayFactor = 4
)

// Open opens the small files of a location for the controller.
func (l *locations) Open(ctx context.Context, location *velerov1.BackupStorageLocation) (cluster.Bucket, error) {
	at, err := credentials.FromLocation(ctx, location, l.from)
	if err != nil {
		return nil, fmt.Errorf("read the location: %w", err)
	}

	options := l.at(at)
	options.RetryFor, options.StallAfter = min(options.RetryFor, bucketRetry), min(options.StallAfter, bucketStall)

	objects, err := store.OpenObjects(at.Settings, at.Source(l.from), options)
	if err != nil {
		return nil, fmt.Errorf("open the location's objects: %w", err)
	}

	// A location that was changed is another one.
	return bucket{objects: objects, location: location.Name, key: fmt.Sprintf("%s %+v %s", location.Name, at.Settings, options.Secret), away: l.away}, nil
}

// bucket is a location's small files, with errors that tell what to do.
type bucket struct {
	objects  *store.Objects
	location string
	key      string
	away     *away
}

// List returns the names right in a folder.
func (b bucket) List(ctx context.Context, folder string) (folders, files []string, err error) {
	err = b.ask(func() error {
		l, err := b.objects.List(ctx, folder)
		folders, files = l.Folders, l.Files

		return err
	})

	return folders, files, err
}

// Get reads a small object.
func (b bucket) Get(ctx context.Context, path string) (content []byte, err error) {
	err = b.ask(func() error {
		content, err = b.objects.Get(ctx, path)

		return err
	})

	if errors.Is(err, store.ErrObjectNotFound) {
		return nil, fmt.Errorf("%w: %w", cluster.ErrObjectNotFound, err)
	}

	return content, err
}

// PutIfAbsent writes a small object where there is none.
func (b bucket) PutIfAbsent(ctx context.Context, path string, content []byte) error {
	return b.ask(func() error { return b.objects.PutIfAbsent(ctx, path, content) })
}

// Put writes a small object in place of what is there.
func (b bucket) Put(ctx context.Context, path string, content []byte) error {
	return b.ask(func() error { return b.objects.Put(ctx, path, content) })
}

// ask asks the store, unless it kept somebody waiting in vain just now.
func (b bucket) ask(request func() error) error {
	err := b.away.ask(b.key, request)
	if err == nil {
		return nil
	}

	remedy := remedyOf(engine.CodeOf(err), b.location)
	if remedy == "" {
		return err // it says what was attempted
	}

	return fmt.Errorf("%w; %s", err, remedy)
}

// away remembers which stores were not there.
type away struct {
	clock clock.PassiveClock

	mu     sync.Mutex
	stores map[string]absence
}

// absence is the failure of a store.
type absence struct {
	since, until time.Time
	err          error
}

func newAway(c clock.PassiveClock) *away { return &away{clock: c, stores: map[string]absence{}} }

// ask makes the request. Where one of the same key has failed for want of the
// store, it fails in the same way for a while, without asking.
func (a *away) ask(key string, request func() error) error {
	start := a.clock.Now()

	if was, ok := a.absent(key, start); ok {
		return engine.Errorf(engine.CodeOf(was.err), "failed %s ago and is asked again in %s: %w",
			start.Sub(was.since).Round(time.Second), was.until.Sub(start).Round(time.Second), was.err)
	}

	err := request()

	switch engine.CodeOf(err) {
	case engine.CodeStoreUnavailable, engine.CodeStoreStalled:
		now := a.clock.Now()

		a.mu.Lock()
		defer a.mu.Unlock()

		a.stores[key] = absence{since: now, until: now.Add(awayFactor * now.Sub(start)), err: err}
	default:
		// The store answered, whatever it said.
	}

	return err
}

// absent returns the absence of a store that is still believed, and forgets those that are over.
func (a *away) absent(key string, now time.Time) (absence, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()

	for k, s := range a.stores {
		if !now.Before(s.until) {
			delete(a.stores, k)
		}
	}

	was, ok := a.stores[key]

	return was, ok
}
