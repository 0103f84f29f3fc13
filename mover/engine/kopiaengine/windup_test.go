package kopiaengine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
)

// settledConfig returns a config with a clock to which all that is in a volume has long been as it is.
func settledConfig(t *testing.T, st blob.Storage) kopiaengine.Config {
	t.Helper()

	s := settings(t, st)
	s.Now = func() time.Time { return time.Now().Add(10 * time.Minute) }

	return kopiaengine.Config{Repository: s}
}

// atTheSecondPack calls f once when the second pack of files is written.
func atTheSecondPack(f func()) func(context.Context, blob.ID) error {
	var packs atomic.Int32

	return func(_ context.Context, id blob.ID) error {
		if isData(id) && packs.Add(1) == 2 {
			f()
		}

		return nil
	}
}

func TestABackupThatWindsUpTakesItsTime(t *testing.T) {
	volume, target, windUp := t.TempDir(), t.TempDir(), make(chan struct{})
	randomFiles(t, volume, 200, 1<<20)

	st := &testStorage{Storage: store(t, t.TempDir())}
	newEngine(t, st)

	st.onPut = atTheSecondPack(func() { close(windUp) })

	r := request(t, volume, "vb-1")
	r.Parallel, r.WindUp = 1, windUp

	// One that is cancelled has no time at all.
	cfg := settledConfig(t, st)
	cfg.CancelGrace = time.Nanosecond

	_, err := kopiaengine.New(cfg).Backup(t.Context(), r, nil)
	requireCode(t, engine.CodeCanceled, err)

	st.onPut = nil
	second := kopiaengine.New(settledConfig(t, st))
	res := backup(t, second, volume, "vb-1")

	assert.True(t, res.Incremental)
	assert.LessOrEqual(t, res.Summary.ReadBytes, res.Summary.Bytes-20<<20, "what the first pack has, at least, is not read again")

	restore(t, second, "vb-1", target)
	requireSame(t, volume, target)
}

func TestABackupThatWindsUpCanBeCancelled(t *testing.T) {
	volume, windUp := t.TempDir(), make(chan struct{})
	randomFiles(t, volume, 100, 1<<20)

	st := &testStorage{Storage: store(t, t.TempDir())}
	newEngine(t, st)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	ask := atTheSecondPack(func() { close(windUp) })
	st.onPut = func(put context.Context, id blob.ID) error {
		if err := ask(put, id); err != nil || isData(id) {
			return err
		}

		// Folders are written when it winds up.
		cancel()
		<-put.Done()

		return put.Err()
	}

	r := request(t, volume, "vb-1")
	r.Parallel, r.WindUp = 1, windUp

	cfg := settledConfig(t, st)
	cfg.CancelGrace = time.Millisecond

	_, err := kopiaengine.New(cfg).Backup(ctx, r, nil)
	requireCode(t, engine.CodeCanceled, err)
}

func TestWhatABackupHasIsWrittenAlongTheWay(t *testing.T) {
	volume, target := t.TempDir(), t.TempDir()

	for i := range 100 {
		require.NoError(t, os.WriteFile(filepath.Join(volume, fmt.Sprint(i)), fmt.Append(nil, i), 0o600))
	}

	var (
		mu      sync.Mutex
		indexes int
	)

	st := &testStorage{Storage: store(t, t.TempDir())}
	newEngine(t, st)

	st.onPut = func(_ context.Context, id blob.ID) error {
		mu.Lock()
		defer mu.Unlock()

		if strings.HasPrefix(string(id), "xn") {
			indexes++
		}

		return nil
	}

	e := kopiaengine.New(settledConfig(t, st))
	r := request(t, volume, "vb-1")
	r.FlushAfter = 10

	_, err := e.Backup(t.Context(), r, nil)
	require.NoError(t, err)

	assert.Greater(t, indexes, 10, "one for ten files, and that of the snapshot")

	restore(t, e, "vb-1", target)
	requireSame(t, volume, target)
}
