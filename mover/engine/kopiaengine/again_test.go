package kopiaengine_test

import (
	"bytes"
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// noisy is a storage that flips a bit in the middle of some of its answers.
type noisy struct {
	blob.Storage

	gets atomic.Int64
	// flips reports whether the n-th answer, from 1, is altered.
	flips func(n int64, id blob.ID) bool
	// rotten are offsets of bytes that are altered in each answer that has them.
	rotten map[blob.ID]int64
}

func (s *noisy) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	b := &answer{}
	if err := s.Storage.GetBlob(ctx, id, offset, length, b); err != nil {
		return err
	}

	data := b.Bytes()
	if s.flips != nil && s.flips(s.gets.Add(1), id) && len(data) > 0 {
		data[len(data)/2] ^= 1
	}

	if at, ok := s.rotten[id]; ok && at >= offset && at-offset < int64(len(data)) {
		data[at-offset] ^= 1
	}

	out.Reset()

	_, err := out.Write(data)

	return err
}

// answer implements blob.OutputBuffer.
type answer struct{ bytes.Buffer }

func (a *answer) Length() int { return a.Len() }

func isFile(p string) bool { return p == "." }

// TestOneBadAnswerIsAskedForAgain alters each answer of the store in turn.
func TestOneBadAnswerIsAskedForAgain(t *testing.T) {
	volume := t.TempDir()
	randomFiles(t, volume, 30, 3000)
	randomFiles(t, filepath.Join(volume, "folder"), 2, 5<<20)

	st := &noisy{Storage: store(t, t.TempDir()), flips: func(int64, blob.ID) bool { return false }}
	s := settings(t, st)
	backup(t, newEngineWith(t, s), volume, "vb-1")

	fresh := func(cache string) *kopiaengine.Engine {
		s := s
		s.CacheDir = cache

		return kopiaengine.New(kopiaengine.Config{Repository: s})
	}

	// count returns how many answers f takes.
	count := func(f func()) int64 {
		st.gets.Store(0)
		f()

		return st.gets.Load()
	}

	once := func(at int64) {
		st.gets.Store(0)
		st.flips = func(n int64, _ blob.ID) bool { return n == at }
	}

	t.Run("of a restore", func(t *testing.T) {
		all := count(func() { restore(t, fresh(t.TempDir()), "vb-1", t.TempDir()) })
		require.Greater(t, all, int64(4))

		for at := int64(1); at <= all; at++ {
			once(at)

			target := t.TempDir()
			restore(t, fresh(t.TempDir()), "vb-1", target)
			requireSame(t, volume, target, tree.Skip(isFile))
		}
	})

	t.Run("of a backup, and none of it is kept", func(t *testing.T) {
		once(0)

		all := count(func() { backup(t, fresh(t.TempDir()), volume, "vb-2") })
		require.Greater(t, all, int64(4))

		for at := int64(1); at <= all; at++ {
			once(at)

			cache := t.TempDir()
			assert.True(t, backup(t, fresh(cache), volume, "vb-3").Incremental, "answer %d", at)
			assert.True(t, backup(t, fresh(cache), volume, "vb-4").Incremental, "answer %d", at)
		}
	})

	t.Run("and what is bad every time is damage", func(t *testing.T) {
		st.flips = func(_ int64, id blob.ID) bool { return id[0] == 'p' }
		_, err := fresh(t.TempDir()).Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-1"}, nil)
		requireCode(t, engine.CodeRepositoryDamaged, err)
	})
}
