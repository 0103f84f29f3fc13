package kopiaengine_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// faults are what may befall a blob in a store.
var faults = map[string]func(t *testing.T, path string){
	"lost": func(t *testing.T, path string) {
		t.Helper()
		require.NoError(t, os.Remove(path))
	},
	"cut": func(t *testing.T, path string) {
		t.Helper()

		i, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, min(40, i.Size()/2)))
	},
	"flipped": func(t *testing.T, path string) {
		t.Helper()

		b, err := os.ReadFile(path)
		require.NoError(t, err)

		// Not in one place only: the end of a pack is a copy of its index, which nobody needs.
		for i := 64; i < len(b); i += 128 {
			b[i] ^= 1
		}

		require.NoError(t, os.WriteFile(path, b, 0o600))
	},
}

// blobsIn returns the blobs of a storage in a folder that hold data, and where they are.
func blobsIn(t *testing.T, dir string) map[string]string {
	t.Helper()

	blobs := map[string]string{}

	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		rel, err := filepath.Rel(dir, path)
		id := strings.TrimSuffix(strings.ReplaceAll(rel, "/", ""), ".f")

		if slices.ContainsFunc([]string{"p", "q", "xn"}, func(p string) bool { return strings.HasPrefix(id, p) }) {
			blobs[id] = path
		}

		return err
	}))

	return blobs
}

// history is a repository with two backups of a volume and one of another, and the cache
// of the machine that has made them.
type history struct {
	volume, other, store, cache string
	// first and second are the blobs that the backups of the volume have written; before is
	// the store as the first one has left it.
	first, second []string
	before        string
}

// aged has a file be written long enough ago to be believed unchanged.
func aged(t *testing.T, path string, age time.Duration) {
	t.Helper()

	at := time.Now().Add(-age)
	require.NoError(t, os.Chtimes(path, at, at))
}

func writeAged(t *testing.T, path, content string, age time.Duration) {
	t.Helper()

	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	aged(t, path, age)
}

func otherRequest(t *testing.T, h *history, job string) engine.BackupRequest {
	t.Helper()

	r := request(t, h.other, job)
	r.Path, r.Instance = "/persistentvolumeclaim/other", "pvc/other/1"

	return r
}

func makeHistory(t *testing.T) *history {
	t.Helper()

	h := &history{volume: t.TempDir(), other: t.TempDir(), store: t.TempDir(), before: t.TempDir()}

	for _, name := range []string{"a", "b", "folder/c", "folder/below/d", "another/e"} {
		writeAged(t, filepath.Join(h.volume, name), strings.Repeat(name+" of the volume\n", 2000), time.Hour)
	}

	require.NoError(t, os.Symlink("a", filepath.Join(h.volume, "link")))
	require.NoError(t, os.Link(filepath.Join(h.volume, "b"), filepath.Join(h.volume, "folder/b again")))
	writeAged(t, filepath.Join(h.other, "file"), "of another volume", time.Hour)

	s := settings(t, store(t, h.store))
	s.Now = hours
	h.cache = s.CacheDir
	e := newEngineWith(t, s)

	_, err := e.Backup(t.Context(), otherRequest(t, h, "vb-other"), nil)
	require.NoError(t, err)

	none := blobsIn(t, h.store)

	backup(t, e, h.volume, "vb-1")

	one := blobsIn(t, h.store)
	require.NoError(t, os.CopyFS(h.before, os.DirFS(h.store)))

	writeAged(t, filepath.Join(h.volume, "folder/c"), "changed", 30*time.Minute)
	require.True(t, backup(t, e, h.volume, "vb-2").Incremental)

	for id := range blobsIn(t, h.store) {
		_, first := one[id]
		_, old := none[id]

		switch {
		case old:
		case first:
			h.first = append(h.first, id)
		default:
			h.second = append(h.second, id)
		}
	}

	return h
}

// hours is a clock by which what has just been written to a volume was written long ago.
func hours() time.Time { return time.Now().Add(2 * time.Hour) }

// ahead is an engine with that clock that has cached nothing.
func ahead(t *testing.T, st blob.Storage) *kopiaengine.Engine {
	t.Helper()

	s := settings(t, st)
	s.Now = hours

	return kopiaengine.New(kopiaengine.Config{Repository: s})
}

// on returns a copy of a store, and an engine on it with a copy of the cache, or with none.
func (h *history) on(t *testing.T, from string, warm bool) (dir string, e *kopiaengine.Engine) {
	t.Helper()

	dir = t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(from)))

	s := settings(t, store(t, dir))
	s.Now = hours

	if warm {
		require.NoError(t, os.CopyFS(s.CacheDir, os.DirFS(h.cache)))
	}

	return dir, kopiaengine.New(kopiaengine.Config{Repository: s})
}

// damage lets a fault befall those of the blobs that are of a kind.
func damageBlobs(t *testing.T, dir, kind string, of []string, fault func(*testing.T, string)) {
	t.Helper()

	at := blobsIn(t, dir)
	n := 0

	for _, id := range of {
		if path, ok := at[id]; ok && strings.HasPrefix(id, kind) {
			fault(t, path)

			n++
		}
	}

	require.Positive(t, n, "of kind %s", kind)
}

// restoreOrSay restores a snapshot from a cold cache. It is right, or there is an error that
// says what is the matter.
func restoreOrSay(t *testing.T, dir, job, want string) string {
	t.Helper()

	target := t.TempDir()

	_, err := ahead(t, store(t, dir)).Restore(t.Context(),
		engine.RestoreRequest{Root: open(t, target), Job: job, Existing: engine.ExistingOverwrite}, nil)
	if err == nil {
		requireSame(t, want, target)

		return "restored"
	}

	require.Contains(t, []engine.Code{engine.CodeRepositoryDamaged, engine.CodeSnapshotNotFound}, engine.CodeOf(err), "%v", err)

	return string(engine.CodeOf(err))
}

func requireRestored(t *testing.T, dir, job, want string) {
	t.Helper()

	target := t.TempDir()
	restore(t, ahead(t, store(t, dir)), job, target)
	requireSame(t, want, target)
}

// cell is one kind of damage.
type cell struct {
	kind, fault, of string
	warm            bool
}

func eachCell(t *testing.T, do func(t *testing.T, c cell)) {
	t.Helper()

	for _, kind := range []string{"p", "q", "x"} {
		for fault := range faults {
			for _, of := range []string{"the parent", "the grandparent", "the grandparent, before the parent"} {
				for _, warm := range []bool{true, false} {
					c := cell{kind, fault, of, warm}
					t.Run(fmt.Sprintf("%s %s of %s, warm %t", kind, fault, of, warm), func(t *testing.T) { do(t, c) })
				}
			}
		}
	}
}

// damaged returns a copy of the store that the damage has befallen, and an engine on it.
func (h *history) damaged(t *testing.T, c cell) (string, *kopiaengine.Engine) {
	t.Helper()

	from, blobs := h.store, h.second

	switch c.of {
	case "the grandparent":
		blobs = h.first
	case "the grandparent, before the parent":
		from, blobs = h.before, h.first
	}

	dir, e := h.on(t, from, c.warm)
	damageBlobs(t, dir, c.kind, blobs, faults[c.fault])

	return dir, e
}

// Whatever is lost, cut or altered in the store between two backups, the next one is whole.
func TestNoDamageInTheStoreIsPassedOnToTheNextBackup(t *testing.T) {
	needRoot(t)

	h := makeHistory(t)

	eachCell(t, func(t *testing.T, c cell) {
		dir, e := h.damaged(t, c)

		third, err := e.Backup(t.Context(), request(t, h.volume, "vb-3"), nil)
		require.NoError(t, err)
		requireRestored(t, dir, "vb-3", h.volume)

		// An index that is gone leaves no trace where the list of snapshots was in it, too.
		if c.kind != "x" || c.fault != "lost" {
			assert.Positive(t, third.LostPacks, "damage is said")
		}

		fourth := backup(t, ahead(t, store(t, dir)), h.volume, "vb-4")
		assert.True(t, fourth.Incremental)
		assert.Zero(t, fourth.LostPacks, "what was found is not found again")
		assert.Zero(t, fourth.Summary.ReadBytes)
		requireRestored(t, dir, "vb-4", h.volume)

		parent := "none"
		if c.of != "the grandparent, before the parent" {
			parent = restoreOrSay(t, dir, "vb-2", h.volume)
		}

		t.Logf("CELL| %s | %s | %s | %t | whole | lost %d, read %d of %d | earlier one: %s", c.kind, c.fault, c.of, c.warm,
			third.LostPacks, third.Summary.ReadBytes, third.Summary.Bytes, parent)
	})
}

// A file of several pieces has a list of them in the repository, beside the folders.
func TestADamagedListOfAFilesPiecesIsUploadedAgain(t *testing.T) {
	needRoot(t)

	volume, dir := t.TempDir(), t.TempDir()
	writeAged(t, filepath.Join(volume, "file"), strings.Repeat("0123456789abcdef", 9<<16), time.Hour) // Three pieces of 4 MiB at most.

	s := settings(t, store(t, dir))
	s.Now = hours
	e := newEngineWith(t, s)

	none := blobsIn(t, dir)
	backup(t, e, volume, "vb-1")

	var written []string

	for id := range blobsIn(t, dir) {
		if _, old := none[id]; !old {
			written = append(written, id)
		}
	}

	damageBlobs(t, dir, "q", written, faults["flipped"])

	second, err := ahead(t, store(t, dir)).Backup(t.Context(), request(t, volume, "vb-2"), nil)
	require.NoError(t, err)
	assert.Positive(t, second.LostPacks)
	requireRestored(t, dir, "vb-2", volume)

	third := backup(t, ahead(t, store(t, dir)), volume, "vb-3")
	assert.Zero(t, third.LostPacks)
	assert.Zero(t, third.Summary.ReadBytes)
	requireRestored(t, dir, "vb-3", volume)
}

// Other volumes of the same repository, and the same data under another instance, are backed up
// and restored beside the damage, whoever comes first.
func TestDamageInTheStoreBlocksNoOther(t *testing.T) {
	needRoot(t)

	h := makeHistory(t)

	eachCell(t, func(t *testing.T, c cell) {
		dir, e := h.damaged(t, c)

		if !c.warm {
			// Before any backup finds the damage: what lies elsewhere can be had.
			requireRestored(t, dir, "vb-other", h.other)
		}

		_, err := e.Backup(t.Context(), otherRequest(t, h, "vb-other-2"), nil)
		require.NoError(t, err)
		requireRestored(t, dir, "vb-other-2", h.other)

		// All of it is read, and most of it is stored already.
		r := request(t, h.volume, "vb-new")
		r.Instance = "pvc/2/2"
		_, err = ahead(t, store(t, dir)).Backup(t.Context(), r, nil)
		require.NoError(t, err)
		requireRestored(t, dir, "vb-new", h.volume)

		backup(t, ahead(t, store(t, dir)), h.volume, "vb-3")
		requireRestored(t, dir, "vb-3", h.volume)
	})
}

// A store that is sound and gives one bad answer has lost nothing, whatever was asked for.
func TestASingleBadAnswerIsNoDamage(t *testing.T) {
	needRoot(t)

	h := makeHistory(t)

	for at := int64(1); ; at++ {
		var what blob.ID

		dir, _ := h.on(t, h.store, false)
		st := &noisy{Storage: store(t, dir)}

		var asked atomic.Int64

		st.flips = func(_ int64, id blob.ID) bool {
			if !strings.ContainsAny(string(id[:1]), "pqx") || asked.Add(1) != at {
				return false
			}

			what = id

			return true
		}

		s := settings(t, st)
		s.Now = hours

		res, err := kopiaengine.New(kopiaengine.Config{Repository: s}).Backup(t.Context(), request(t, h.volume, "vb-3"), nil)

		if what == "" {
			require.Greater(t, at, int64(10), "the backup asks for more than that")

			return
		}

		require.NoError(t, err, "answer %d: %s", at, what)
		assert.Zero(t, res.LostPacks, "answer %d: %s", at, what)
		requireRestored(t, dir, "vb-3", h.volume)

		// The cache of this machine has kept nothing of it.
		again, err := kopiaengine.New(kopiaengine.Config{Repository: s}).Backup(t.Context(), request(t, h.volume, "vb-4"), nil)
		require.NoError(t, err)
		assert.Zero(t, again.LostPacks)
		assert.Zero(t, again.Summary.ReadBytes, "answer %d: %s", at, what)
	}
}

// Two workers find the same loss, and one is slow to mark it: what the other has uploaded
// again meanwhile, and verified, isn't hidden by the mark.
func TestALateMarkHidesNothingThatWasUploadedAgain(t *testing.T) {
	needRoot(t)

	h := makeHistory(t)
	dir, _ := h.on(t, h.store, false)
	deleteBlobs(t, store(t, dir), "p")

	var once sync.Once

	st := &testStorage{Storage: store(t, dir)}
	st.onPut = func(_ context.Context, id blob.ID) error {
		if strings.HasPrefix(string(id), "xn") {
			once.Do(func() {
				backup(t, ahead(t, store(t, dir)), h.volume, "vb-3")
				requireRestored(t, dir, "vb-3", h.volume)
			})
		}

		return nil
	}

	_, err := ahead(t, st).Backup(t.Context(), otherRequest(t, h, "vb-other-2"), nil)
	require.NoError(t, err)

	requireRestored(t, dir, "vb-3", h.volume)
	requireRestored(t, dir, "vb-other-2", h.other)
}
