// Command greedy is the mover's worker with a clock that is ahead, so that all that is in a volume has long been as it
// is, and with an engine that takes memory at a moment that the test has chosen, instead of whenever its volume is large
// enough. The description of a backup says when, see the commands below.
package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/worker"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

const (
	// windUp takes nearly all of the worker's ceiling once some of the volume has been written, until the worker is told to wind up.
	windUp = "wind up"
	// die takes more than that once a checkpoint has been written of some of the volume, and keeps it.
	die = "die"
)

// some of the volume, in bytes of packs of files.
const some = 40 << 20

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}

	switch os.Args[1] {
	case protocol.CommandLockIn:
		os.Exit(worker.LockIn(os.Args[2:]))
	case protocol.CommandRun:
		os.Exit(worker.Run(os.Args[2:], worker.Deps{NewEngine: newEngine, Tick: beneath.Tick}))
	}

	os.Exit(2)
}

// greedy makes a backup's engine when the backup says what it is to do.
type greedy struct {
	*kopiaengine.Engine

	storage *storage
	config  kopiaengine.Config
}

func newEngine(_ context.Context, s worker.Settings) (engine.Engine, error) {
	client, err := store.NewClient(s.Storage, store.ClientOptions{})
	if err != nil {
		return nil, fmt.Errorf("open the storage: %w", err)
	}

	st := &storage{Client: client, ceiling: debug.SetMemoryLimit(-1) / 3 * 4} // The runner gives the runtime three quarters of it.
	c := kopiaengine.Config{Repository: repository.Settings{
		Storage: st, Password: s.Password, Seed: s.Seed, CacheDir: s.Cache.Dir,
		Now: func() time.Time { return time.Now().Add(10 * time.Minute) },
	}, Log: s.Log}

	return &greedy{Engine: kopiaengine.New(c), storage: st, config: c}, nil
}

// Close closes the storage.
func (g *greedy) Close() error { return g.storage.Close(context.Background()) }

// Backup implements engine.Engine.
func (g *greedy) Backup(ctx context.Context, r engine.BackupRequest, p engine.ProgressFunc) (engine.BackupResult, error) {
	c := g.config

	switch r.Description {
	case windUp:
		g.storage.after = g.storage.untilWindUp(r.WindUp)
	case die:
		c.CheckpointInterval = 10 * time.Millisecond // One follows the other.
		g.storage.after = g.storage.untilDeath()
	}

	return kopiaengine.New(c).Backup(ctx, r, p)
}

// storage calls after, if it is set, when a blob has been written.
type storage struct {
	*store.Client

	after func(id string, bytes int)
	// ceiling of the worker's memory, in bytes.
	ceiling int64
}

// PutBlob implements blob.Storage.
func (s *storage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	err := s.Client.PutBlob(ctx, id, data, o)
	if err == nil && s.after != nil {
		s.after(string(id), data.Length())
	}

	return err
}

// The blobs that matter here: packs of files, and the index, which is written when all is that it names.
const (
	packOfFiles = "p"
	index       = "xn"
)

func (s *storage) untilWindUp(told <-chan struct{}) func(id string, bytes int) {
	var (
		once    sync.Once
		written atomic.Int64
	)

	return func(id string, bytes int) {
		if !strings.HasPrefix(id, packOfFiles) || written.Add(int64(bytes)) < some {
			return
		}

		once.Do(func() {
			// In the middle between where it is told to and where it is killed.
			give := take(s.ceiling / 16 * 15)
			<-told
			give()
		})
	}
}

func (s *storage) untilDeath() func(id string, bytes int) {
	var (
		mu             sync.Mutex
		written, saved int
	)

	return func(id string, bytes int) {
		mu.Lock()
		defer mu.Unlock()

		switch {
		case saved == 2: // The first one may have begun before. With the next blob, all that belongs to the second one is there.
			take(s.ceiling / 8 * 9)
			select {}
		case strings.HasPrefix(id, packOfFiles):
			written += bytes
		case strings.HasPrefix(id, index) && written >= some:
			saved++
		}
	}
}

// take has the process use so many bytes of memory until give is called.
func take(bytes int64) (give func()) {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)

	bytes -= int64(min(samples[0].Value.Uint64()-samples[1].Value.Uint64(), math.MaxInt64/2))

	// Not of the runtime, which would see to it that there is as much less of something else.
	ballast, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(fmt.Sprintf("take %d bytes of memory: %v", bytes, err))
	}

	for i := 0; i < len(ballast); i += os.Getpagesize() {
		ballast[i] = 1
	}

	return func() { _ = unix.Munmap(ballast) } // The process ends soon.
}
