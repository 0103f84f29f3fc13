package enginetest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
)

func put(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// copied returns what is in a folder, to compare it with later.
func copied(t *testing.T, dir string) files {
	t.Helper()

	f, err := readFiles(dir)
	require.NoError(t, err)

	return f
}

func refusesData(t *testing.T, e engine.Engine) {
	created(t, e)
	backedUp(t, e, sample(t, "content"), "vb-1")

	outside := t.TempDir()

	for name, fill := range map[string]func(t *testing.T, dir string) (entry string){
		"a file": func(t *testing.T, dir string) string {
			put(t, filepath.Join(dir, "new"), "newer")

			return "new"
		},
		"a file of the snapshot": func(t *testing.T, dir string) string {
			put(t, filepath.Join(dir, "a/file"), "newer")

			return "a"
		},
		"an empty folder": func(t *testing.T, dir string) string {
			require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o755))

			return "folder"
		},
		"a link called lost+found": func(t *testing.T, dir string) string {
			require.NoError(t, os.Symlink(outside, filepath.Join(dir, engine.LostAndFound)))

			return engine.LostAndFound
		},
		"something in lost+found": func(t *testing.T, dir string) string {
			put(t, filepath.Join(dir, engine.LostAndFound, "#12"), "lost")

			return engine.LostAndFound
		},
	} {
		for _, existing := range []engine.ExistingData{"", engine.ExistingRefuse} {
			t.Run(name+" with "+string(existing), func(t *testing.T) {
				target := t.TempDir()
				entry := fill(t, target)
				before := copied(t, target)

				_, err := e.Restore(t.Context(), engine.RestoreRequest{
					Root: open(t, target), Job: "vb-1", Existing: existing, Description: "claim shop/data",
					BeforeWrite: func(context.Context, string) error {
						assert.Fail(t, "it was about to write")

						return nil
					},
				}, nil)
				requireCode(t, engine.CodeTargetNotEmpty, err)
				require.ErrorContains(t, err, "claim shop/data")
				require.ErrorContains(t, err, `"`+entry+`"`)
				assert.Equal(t, before, copied(t, target))
			})
		}
	}
}

func passesLostAndFound(t *testing.T, e engine.Engine) {
	created(t, e)

	dir, target := sample(t, "content"), t.TempDir()
	backedUp(t, e, dir, "vb-1")
	require.NoError(t, os.Mkdir(filepath.Join(target, engine.LostAndFound), 0o700))

	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1"}, nil)
	require.NoError(t, err)
	assert.DirExists(t, filepath.Join(target, engine.LostAndFound))
	assert.FileExists(t, filepath.Join(target, "a/file"))
}

func resumes(t *testing.T, e engine.Engine) {
	created(t, e)

	dir, target := sample(t, "content"), t.TempDir()
	backedUp(t, e, dir, "vb-1")
	put(t, filepath.Join(target, "a/file"), "con")

	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Resumed: true}, nil)
	require.NoError(t, err)
	requireSame(t, dir, target)
}

func resumesOneSnapshotOnly(t *testing.T, e engine.Engine) {
	created(t, e)

	dir := sample(t, "content")
	begun := backedUp(t, e, dir, "vb-1").SnapshotID
	other := backedUp(t, e, sample(t, "other content"), "vb-2").SnapshotID
	like := request(t, dir, "vb-1")
	previous := &engine.Previous{Host: like.Host, Path: like.Path, Before: time.Now().Add(time.Hour)}

	for name, test := range map[string]struct {
		request engine.RestoreRequest
		code    engine.Code
	}{
		"with the same snapshot":              {engine.RestoreRequest{Job: "vb-1", Begun: begun}, ""},
		"with another one":                    {engine.RestoreRequest{Job: "vb-1", Begun: other}, engine.CodeSnapshotNotFound},
		"with another one, as a mirror":       {engine.RestoreRequest{Job: "vb-1", Begun: other, Existing: engine.ExistingMirror}, ""},
		"with the same previous one":          {engine.RestoreRequest{Job: "vb-gone", Begun: other, OnMissing: engine.MissingPrevious, Previous: previous}, ""},
		"with another previous one":           {engine.RestoreRequest{Job: "vb-gone", Begun: begun, OnMissing: engine.MissingPrevious, Previous: previous}, engine.CodeSnapshotNotFound},
		"with none":                           {engine.RestoreRequest{Job: "vb-gone", Begun: begun, OnMissing: engine.MissingEmpty}, engine.CodeSnapshotNotFound},
		"with none, as a mirror":              {engine.RestoreRequest{Job: "vb-gone", Begun: begun, OnMissing: engine.MissingEmpty, Existing: engine.ExistingMirror}, engine.CodeSnapshotNotFound},
		"with what an older daemon has noted": {engine.RestoreRequest{Job: "vb-1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			target := t.TempDir()
			put(t, filepath.Join(target, "a/file"), "con")

			before := copied(t, target)
			r := test.request
			r.Root, r.Resumed = open(t, target), true

			_, err := e.Restore(t.Context(), r, nil)
			if test.code == "" {
				require.NoError(t, err)

				return
			}

			requireCode(t, test.code, err)
			assert.Equal(t, before, copied(t, target))
		})
	}
}

func mirrors(t *testing.T, e engine.Engine) {
	created(t, e)

	dir, target, outside := sample(t, "content"), t.TempDir(), t.TempDir()
	backedUp(t, e, dir, "vb-1")
	put(t, filepath.Join(outside, "precious"), "not ours")

	require.NoError(t, os.Mkdir(filepath.Join(target, engine.LostAndFound), 0o700))
	put(t, filepath.Join(target, engine.LostAndFound, "#12"), "lost")
	put(t, filepath.Join(target, "extra"), "extra")
	put(t, filepath.Join(target, "a/extra"), "extra")
	put(t, filepath.Join(target, "a/b/none/was a folder"), "extra")
	put(t, filepath.Join(target, "a/b/empty"), "was a file")
	put(t, filepath.Join(target, "tree/of/folders"), "extra")
	require.NoError(t, os.Symlink(outside, filepath.Join(target, "a/away")))
	require.NoError(t, os.Symlink("/", filepath.Join(target, "root")))
	require.NoError(t, os.Symlink(outside, filepath.Join(target, "tree/away")))

	_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Existing: engine.ExistingMirror}, nil)
	require.NoError(t, err)
	assert.FileExists(t, filepath.Join(outside, "precious"))

	// What the file system has made for itself stays, and only that.
	kept, err := os.ReadDir(filepath.Join(target, engine.LostAndFound))
	require.NoError(t, err)
	assert.Empty(t, kept)
	require.NoError(t, os.Remove(filepath.Join(target, engine.LostAndFound)))

	_, err = e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: "vb-1", Existing: engine.ExistingMirror}, nil)
	require.NoError(t, err) // The root's time, again.
	requireSame(t, dir, target)
}

func asksBeforeWriting(t *testing.T, e engine.Engine) {
	created(t, e)

	dir, target := sample(t, "content"), t.TempDir()
	taken := backedUp(t, e, dir, "vb-1")
	put(t, filepath.Join(target, "extra"), "extra")

	before, asked := copied(t, target), 0

	for _, answer := range []error{engine.Errorf(engine.CodeCanceled, "told to"), nil} {
		_, err := e.Restore(t.Context(), engine.RestoreRequest{
			Root: open(t, target), Job: "vb-1", Existing: engine.ExistingMirror,
			BeforeWrite: func(_ context.Context, snapshot string) error {
				asked++

				assert.Equal(t, taken.SnapshotID, snapshot)
				assert.Equal(t, before, copied(t, target))

				return answer
			},
		}, nil)
		require.ErrorIs(t, err, answer)

		if answer != nil {
			requireCode(t, engine.CodeCanceled, err)
			assert.Equal(t, before, copied(t, target))
		}
	}

	assert.Equal(t, 2, asked)
	requireSame(t, dir, target)
}

func leavesWithoutSnapshot(t *testing.T, e engine.Engine) {
	created(t, e)
	backedUp(t, e, sample(t, "content"), "vb-1")

	for name, test := range map[string]struct {
		existing engine.ExistingData
		data     bool
		code     engine.Code
	}{
		"an empty volume":                         {engine.ExistingRefuse, false, ""},
		"a volume with data that is to be empty":  {engine.ExistingRefuse, true, engine.CodeTargetNotEmpty},
		"a volume with data":                      {engine.ExistingOverwrite, true, ""},
		"a volume with data that is to be gone":   {engine.ExistingMirror, true, ""},
		"an empty volume with nothing to mirror ": {engine.ExistingMirror, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			target := t.TempDir()
			if test.data {
				put(t, filepath.Join(target, "there"), "data")
			}

			before := copied(t, target)
			res, err := e.Restore(t.Context(), engine.RestoreRequest{
				Root: open(t, target), Job: "vb-gone", Existing: test.existing, OnMissing: engine.MissingEmpty,
				BeforeWrite: func(context.Context, string) error {
					return engine.Errorf(engine.CodeInternal, "it was about to write")
				},
			}, nil)
			assert.Equal(t, before, copied(t, target))

			if test.code != "" {
				requireCode(t, test.code, err)

				return
			}

			require.NoError(t, err)
			assert.Empty(t, res.SnapshotID)
			assert.Nil(t, res.Instead)
			assert.Contains(t, res.Missing, "vb-gone")
			assert.Zero(t, res.Summary)
		})
	}
}

func restoresPrevious(t *testing.T, e engine.Engine) {
	created(t, e)

	color := func(name string) map[string]string { return map[string]string{"color": name} }

	// Each of these is newer than the one before, and is not to be taken for another's.
	taken := map[string]string{}
	for _, s := range []struct{ job, host, path, color string }{
		{"vb-old", "shop", "/persistentvolumeclaim/data", "red"},
		{"vb-1", "shop", "/persistentvolumeclaim/data", "red"},
		{"vb-2", "shop", "/persistentvolumeclaim/data", "blue"},
		{"vb-3", "bank", "/persistentvolumeclaim/data", "red"},
		{"vb-4", "shop", "/persistentvolumeclaim/data-2", "red"},
	} {
		taken[s.job] = sample(t, s.job)
		r := request(t, taken[s.job], s.job)
		r.Host, r.Path, r.Instance, r.Tags = s.host, s.path, "pvc/"+s.job, color(s.color)

		_, err := e.Backup(t.Context(), r, nil)
		require.NoError(t, err)
	}

	list, err := e.Snapshots(t.Context())
	require.NoError(t, err)
	require.Len(t, list, len(taken))

	now := time.Now().Add(time.Hour)

	for name, test := range map[string]struct {
		job      string
		previous engine.Previous
		want     string
	}{
		"the newest of the same source":       {"vb-gone", engine.Previous{Host: "shop", Path: "/persistentvolumeclaim/data", Before: now}, "vb-2"},
		"the newest as expected":              {"vb-gone", engine.Previous{Host: "shop", Path: "/persistentvolumeclaim/data", Before: now, Expect: color("red")}, "vb-1"},
		"none that is as old or newer":        {"vb-gone", engine.Previous{Host: "shop", Path: "/persistentvolumeclaim/data", Before: list[1].Time}, "vb-old"},
		"another one where it is older":       {"vb-gone", engine.Previous{Host: "bank", Path: "/persistentvolumeclaim/data", Before: now}, "vb-3"},
		"its own where that is there":         {"vb-1", engine.Previous{Host: "shop", Path: "/persistentvolumeclaim/data", Before: now}, "vb-1"},
		"none where the namespace is another": {"vb-gone", engine.Previous{Host: "home", Path: "/persistentvolumeclaim/data", Before: now}, ""},
		"none where the claim is another":     {"vb-gone", engine.Previous{Host: "shop", Path: "/persistentvolumeclaim/dat", Before: now}, ""},
		"none where all are newer":            {"vb-gone", engine.Previous{Host: "shop", Path: "/persistentvolumeclaim/data", Before: list[0].Time}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			target := t.TempDir()
			res, err := e.Restore(t.Context(), engine.RestoreRequest{
				Root: open(t, target), Job: test.job, OnMissing: engine.MissingPrevious, Previous: &test.previous,
			}, nil)

			if test.want == "" {
				requireCode(t, engine.CodeSnapshotNotFound, err)
				assert.Len(t, copied(t, target), 1)

				return
			}

			require.NoError(t, err)
			requireSame(t, taken[test.want], target)

			if test.want == test.job {
				assert.Empty(t, res.Missing)
				assert.Nil(t, res.Instead)

				return
			}

			assert.Contains(t, res.Missing, test.job)
			require.NotNil(t, res.Instead)
			assert.Equal(t, res.SnapshotID, res.Instead.ID)
			assert.Equal(t, test.want, res.Instead.Tags["estiba-job"])
		})
	}
}
