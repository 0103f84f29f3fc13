package enginetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

// RunSuite tests the promises that engine.Engine makes. empty gives an engine on an
// empty store of its own, without a repository, that needs no closing; prepared
// gives one that finds a repository without snapshots when it is to create it,
// for the tests that aren't about creating. They may be the same.
func RunSuite(t *testing.T, empty, prepared func(t *testing.T) engine.Engine) {
	t.Helper()

	for name, test := range map[string]func(*testing.T, engine.Engine){
		"creating a repository twice finds it":              createsTwice,
		"creating a repository concurrently makes one":      createsConcurrently,
		"without a repository each call says so":            needsRepository,
		"a request that lacks something is refused":         refusesRequests,
		"a snapshot comes back":                             restores,
		"an existing repository is opened and none is made": opensExisting,
	} {
		t.Run(name, func(t *testing.T) { test(t, empty(t)) })
	}

	for name, test := range map[string]func(*testing.T, engine.Engine){
		"a restore replaces what differs and leaves what is extra":   restoresOver,
		"a job done twice restores its newest snapshot":              restoresNewest,
		"a snapshot is only restored if it is the one expected":      restoresExpected,
		"a snapshot is only forgotten if it is the one expected":     forgetsExpected,
		"an unknown job can't be restored":                           misses,
		"snapshots are listed with their tags, oldest first":         lists,
		"forgetting removes a job's snapshots and no others":         forgets,
		"only the same instance spares reading":                      keepsInstancesApart,
		"a context that is done cancels each call":                   cancels,
		"progress ends with everything done and never runs parallel": tells,
		"jobs can run concurrently":                                  runsConcurrently,
		"the root stays open":                                        leavesRootOpen,
		"a volume that holds data is refused and left as it is":      refusesData,
		"a volume that holds data can be kept as it is":              keepsData,
		"an empty lost+found is no data":                             passesLostAndFound,
		"a restore that goes on may find what it wrote":              resumes,
		"a restore that goes on writes the snapshot it began with":   resumesOneSnapshotOnly,
		"a mirror has nothing that the snapshot does not have":       mirrors,
		"nothing is written before that is allowed":                  asksBeforeWriting,
		"a missing snapshot can leave the volume as it is":           leavesWithoutSnapshot,
		"a missing snapshot can be stood in for by an older one":     restoresPrevious,
	} {
		t.Run(name, func(t *testing.T) { test(t, prepared(t)) })
	}
}

func createsTwice(t *testing.T, e engine.Engine) {
	created(t, e)
	dir := sample(t, "one")
	backedUp(t, e, dir, "vb-1")
	created(t, e)

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func createsConcurrently(t *testing.T, e engine.Engine) {
	var wg sync.WaitGroup

	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = e.CreateRepository(t.Context(), engine.FormatFast) })
	}

	wg.Wait()
	require.NoError(t, errors.Join(errs...))

	dir, target := sample(t, "one"), t.TempDir()
	backedUp(t, e, dir, "vb-1")
	restored(t, e, "vb-1", target)
	requireSame(t, dir, target)
}

// calls makes each call but the CreateRepository that makes one, and returns the errors by name.
func calls(ctx context.Context, t *testing.T, e engine.Engine) map[Method]error {
	t.Helper()

	errs := map[Method]error{}
	_, errs[Backup] = e.Backup(ctx, request(t, sample(t, "x"), "vb-1"), nil)
	_, errs[Restore] = e.Restore(ctx, engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-1"}, nil)
	_, errs[Forget] = e.Forget(ctx, engine.ForgetRequest{Job: "vb-1"})
	_, errs[Snapshots] = e.Snapshots(ctx)
	errs["CreateRepository of an existing one"] = e.CreateRepository(ctx, engine.FormatExisting)

	return errs
}

func needsRepository(t *testing.T, e engine.Engine) {
	for method, err := range calls(t.Context(), t, e) {
		t.Run(string(method), func(t *testing.T) { requireCode(t, engine.CodeRepositoryNotFound, err) })
	}
}

func refusesRequests(t *testing.T, e engine.Engine) {
	created(t, e)

	good := request(t, sample(t, "x"), "vb-1")

	for name, spoil := range map[string]func(*engine.BackupRequest){
		"root":     func(r *engine.BackupRequest) { r.Root = nil },
		"host":     func(r *engine.BackupRequest) { r.Host = "" },
		"path":     func(r *engine.BackupRequest) { r.Path = "" },
		"instance": func(r *engine.BackupRequest) { r.Instance = "" },
		"job":      func(r *engine.BackupRequest) { r.Job = "" },
	} {
		t.Run("backup without "+name, func(t *testing.T) {
			r := good
			spoil(&r)

			_, err := e.Backup(t.Context(), r, nil)
			requireCode(t, engine.CodeInvalidRequest, err)
		})
	}

	_, err := e.Restore(t.Context(), engine.RestoreRequest{Job: "vb-1"}, nil)
	requireCode(t, engine.CodeInvalidRequest, err)

	_, err = e.Restore(t.Context(), engine.RestoreRequest{Root: good.Root}, nil)
	requireCode(t, engine.CodeInvalidRequest, err)

	_, err = e.Forget(t.Context(), engine.ForgetRequest{})
	requireCode(t, engine.CodeInvalidRequest, err)

	requireCode(t, engine.CodeInvalidRequest, e.CreateRepository(t.Context(), "best"))
}

func restores(t *testing.T, e engine.Engine) {
	created(t, e)

	dir, target := sample(t, "content"), t.TempDir()
	saved := backedUp(t, e, dir, "vb-1")
	res := restored(t, e, "vb-1", target)

	requireSame(t, dir, target)
	assert.NotEmpty(t, saved.SnapshotID)
	assert.Equal(t, saved.SnapshotID, res.SnapshotID)
	assert.False(t, saved.Incremental)

	for _, s := range []engine.Summary{saved.Summary, res.Summary} {
		assert.EqualValues(t, 2, s.Files)
		assert.EqualValues(t, 4, s.Directories)
		assert.EqualValues(t, 1, s.Symlinks)
		assert.EqualValues(t, len("content"), s.Bytes)
		assert.Empty(t, s.Omissions)
	}
}

func restoresOver(t *testing.T, e engine.Engine) {
	created(t, e)

	dir, target := sample(t, "right"), t.TempDir()
	backedUp(t, e, dir, "vb-1")
	restored(t, e, "vb-1", target)

	require.NoError(t, os.WriteFile(filepath.Join(target, "a/file"), []byte("wrong"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(target, "link")))
	require.NoError(t, os.Mkdir(filepath.Join(target, "link"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(target, "extra"), []byte("extra"), 0o600))

	restored(t, e, "vb-1", target)

	b, err := os.ReadFile(filepath.Join(target, "extra"))
	require.NoError(t, err)
	assert.Equal(t, "extra", string(b))

	require.NoError(t, os.Remove(filepath.Join(target, "extra")))
	restored(t, e, "vb-1", target) // The root's time, again.
	requireSame(t, dir, target)
}

func restoresNewest(t *testing.T, e engine.Engine) {
	created(t, e)

	first, second, target := sample(t, "first"), sample(t, "second"), t.TempDir()
	backedUp(t, e, first, "vb-1")
	newer := backedUp(t, e, second, "vb-1")
	res := restored(t, e, "vb-1", target)

	assert.Equal(t, newer.SnapshotID, res.SnapshotID)
	requireSame(t, second, target)
}

func misses(t *testing.T, e engine.Engine) {
	created(t, e)

	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-none"}, nil)
	requireCode(t, engine.CodeSnapshotNotFound, err)

	res, err := e.Forget(t.Context(), engine.ForgetRequest{Job: "vb-none"})
	require.NoError(t, err)
	assert.Zero(t, res.Deleted)
}

func lists(t *testing.T, e engine.Engine) {
	created(t, e)

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)

	dir := sample(t, "content")

	for i := range 3 {
		r := request(t, dir, fmt.Sprintf("vb-%d", i))
		r.Tags = contract.Snapshot{Job: r.Job, Instance: r.Instance, Namespace: "shop", Volume: "data"}.Tags()

		_, err := e.Backup(t.Context(), r, nil)
		require.NoError(t, err)
	}

	list, err = e.Snapshots(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 3)

	for i, s := range list {
		assert.NotEmpty(t, s.ID)
		assert.Equal(t, fmt.Sprintf("vb-%d", i), s.Tags[contract.TagJob])
		assert.Equal(t, "data", s.Tags[contract.TagVolume])
		assert.Equal(t, "shop", s.Host)
		assert.Equal(t, "/persistentvolumeclaim/data", s.Path)
		assert.EqualValues(t, len("content"), s.Bytes)
		assert.False(t, s.Time.IsZero())
	}
}

func forgets(t *testing.T, e engine.Engine) {
	created(t, e)

	dir := sample(t, "content")
	backedUp(t, e, dir, "vb-1")
	backedUp(t, e, dir, "vb-1")
	backedUp(t, e, dir, "vb-2")

	res, err := e.Forget(t.Context(), engine.ForgetRequest{Job: "vb-1"})
	require.NoError(t, err)
	assert.Equal(t, 2, res.Deleted)

	_, err = e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-1"}, nil)
	requireCode(t, engine.CodeSnapshotNotFound, err)

	target := t.TempDir()
	restored(t, e, "vb-2", target)
	requireSame(t, dir, target)
}

func opensExisting(t *testing.T, e engine.Engine) {
	requireCode(t, engine.CodeRepositoryNotFound, e.CreateRepository(t.Context(), engine.FormatExisting))

	_, err := e.Snapshots(t.Context())
	requireCode(t, engine.CodeRepositoryNotFound, err)

	created(t, e)
	require.NoError(t, e.CreateRepository(t.Context(), engine.FormatExisting))
}

// tagged takes a snapshot of the job vb-1 with the namespace and volume given.
func tagged(t *testing.T, e engine.Engine, dir, namespace string) {
	t.Helper()

	r := request(t, dir, "vb-1")
	r.Tags = contract.Snapshot{Job: r.Job, Instance: r.Instance, Namespace: namespace, Volume: "data"}.Tags()

	_, err := e.Backup(t.Context(), r, nil)
	require.NoError(t, err)
}

func restoresExpected(t *testing.T, e engine.Engine) {
	created(t, e)

	first, second := sample(t, "first"), sample(t, "second")
	tagged(t, e, first, "shop")
	tagged(t, e, second, "bank")

	for namespace, want := range map[string]string{"shop": first, "bank": second} {
		target := t.TempDir()
		_, err := e.Restore(t.Context(), engine.RestoreRequest{
			Root: open(t, target), Job: "vb-1", Expect: map[string]string{contract.TagNamespace: namespace, contract.TagVolume: "data"},
		}, nil)
		require.NoError(t, err)
		requireSame(t, want, target)
	}

	for name, test := range map[string]struct {
		expect map[string]string
		words  []string
	}{
		"another value": {map[string]string{contract.TagNamespace: "home"}, []string{contract.TagNamespace, `"home"`, `"bank"`}},
		"a missing tag": {map[string]string{"color": "red"}, []string{"color", `"red"`}},
	} {
		t.Run(name, func(t *testing.T) {
			target := t.TempDir()
			_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Expect: test.expect}, nil)
			requireCode(t, engine.CodeSnapshotNotFound, err)

			for _, word := range test.words {
				assert.Contains(t, err.Error(), word)
			}

			entries, err := os.ReadDir(target)
			require.NoError(t, err)
			assert.Empty(t, entries)
		})
	}
}

func forgetsExpected(t *testing.T, e engine.Engine) {
	created(t, e)

	dir := sample(t, "content")
	tagged(t, e, dir, "shop")
	tagged(t, e, dir, "bank")

	for _, test := range []struct {
		namespace     string
		deleted, left int
	}{{"home", 0, 2}, {"shop", 1, 1}, {"shop", 0, 1}, {"bank", 1, 0}} {
		res, err := e.Forget(t.Context(), engine.ForgetRequest{Job: "vb-1", Expect: map[string]string{contract.TagNamespace: test.namespace}})
		require.NoError(t, err)
		assert.Equal(t, test.deleted, res.Deleted)

		list, err := e.Snapshots(t.Context())
		require.NoError(t, err)
		assert.Len(t, list, test.left)
	}
}

func keepsInstancesApart(t *testing.T, e engine.Engine) {
	created(t, e)

	dir := sample(t, "content")
	backedUp(t, e, dir, "vb-1")
	assert.True(t, backedUp(t, e, dir, "vb-2").Incremental)

	other := request(t, dir, "vb-3")
	other.Instance = "pvc/2/2"

	res, err := e.Backup(t.Context(), other, nil)
	require.NoError(t, err)
	assert.False(t, res.Incremental)
}

func cancels(t *testing.T, e engine.Engine) {
	created(t, e)
	backedUp(t, e, sample(t, "x"), "vb-1")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	errs := calls(ctx, t, e)
	errs[CreateRepository] = e.CreateRepository(ctx, engine.FormatFast)

	for method, err := range errs {
		t.Run(string(method), func(t *testing.T) { requireCode(t, engine.CodeCanceled, err) })
	}

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 1)
}

func tells(t *testing.T, e engine.Engine) {
	created(t, e)

	dir := sample(t, "content")

	for name, run := range map[string]func(engine.ProgressFunc) error{
		"backup": func(p engine.ProgressFunc) error {
			_, err := e.Backup(t.Context(), request(t, dir, "vb-1"), p)

			return err
		},
		"restore": func(p engine.ProgressFunc) error {
			backedUp(t, e, dir, "vb-2")
			_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, t.TempDir()), Job: "vb-2"}, p)

			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var (
				last   engine.Progress
				inside atomic.Int32
			)

			require.NoError(t, run(func(p engine.Progress) {
				assert.EqualValues(t, 1, inside.Add(1))

				last = p

				inside.Add(-1)
			}))

			assert.EqualValues(t, len("content"), last.BytesDone)
			assert.EqualValues(t, 3, last.FilesDone)
			assert.True(t, last.TotalFiles == 0 || last.TotalFiles >= last.FilesDone)
		})
	}
}

func runsConcurrently(t *testing.T, e engine.Engine) {
	created(t, e)

	const jobs = 3

	var wg sync.WaitGroup

	errs := make([]error, jobs)
	dirs := make([]string, jobs)

	for i := range jobs {
		dirs[i] = sample(t, fmt.Sprint("content ", i))
		r := request(t, dirs[i], fmt.Sprintf("vb-%d", i))
		r.Path += fmt.Sprint(i)

		wg.Go(func() { _, errs[i] = e.Backup(t.Context(), r, nil) })
	}

	wg.Wait()
	require.NoError(t, errors.Join(errs...))

	for i := range jobs {
		target := t.TempDir()
		restored(t, e, fmt.Sprintf("vb-%d", i), target)
		requireSame(t, dirs[i], target)
	}
}

func leavesRootOpen(t *testing.T, e engine.Engine) {
	created(t, e)

	r := request(t, sample(t, "content"), "vb-1")
	_, err := e.Backup(t.Context(), r, nil)
	require.NoError(t, err)

	target := open(t, t.TempDir())
	_, err = e.Restore(t.Context(), engine.RestoreRequest{Root: target, Job: "vb-1"}, nil)
	require.NoError(t, err)

	for _, f := range []*os.File{r.Root, target} {
		_, err := f.Stat()
		require.NoError(t, err)
	}
}
