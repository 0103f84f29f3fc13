package kopiaengine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// forge saves a snapshot of a job whose root folder is the JSON given; FILE in it
// is the ID of an object with the content "x".
func forge(t *testing.T, st blob.Storage, job, folder string) {
	t.Helper()

	rep, err := repository.Open(t.Context(), settings(t, st))
	require.NoError(t, err)

	defer func() { require.NoError(t, rep.Close(context.Background())) }() // The test's context is done by then.

	require.NoError(t, repo.WriteSession(t.Context(), rep, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		put := func(prefix, content string) object.ID {
			o := w.NewObjectWriter(ctx, object.WriterOptions{Prefix: "k"})
			if prefix == "" {
				o = w.NewObjectWriter(ctx, object.WriterOptions{})
			}

			_, err := o.Write([]byte(content))
			require.NoError(t, err)

			id, err := o.Result()
			require.NoError(t, errors.Join(err, o.Close()))

			return id
		}

		file := put("", "x")
		root := put("k", strings.ReplaceAll(folder, "FILE", file.String()))

		_, err := snapshot.SaveSnapshot(ctx, w, &snapshot.Manifest{
			Source:    snapshot.SourceInfo{Host: "shop", UserName: contract.SnapshotUser, Path: "/x"},
			RootEntry: &snapshot.DirEntry{Type: snapshot.EntryTypeDirectory, Permissions: 0o755, ObjectID: root},
			Tags:      map[string]string{"tag:" + contract.TagJob: job},
		})

		return err
	}))
}

func TestARepositoryThatLiesHarmsNothing(t *testing.T) {
	needRoot(t)

	file := func(name string) string {
		return fmt.Sprintf(`{"name":%s,"type":"f","mode":"0644","size":1,"obj":"FILE"}`, name)
	}
	list := func(entries ...string) string {
		return `{"stream":"kopia:directory","entries":[` + strings.Join(entries, ",") + `],"summary":null}`
	}

	st := store(t, t.TempDir())
	e := newEngine(t, st)
	n := 0

	for name, folder := range map[string]string{
		"a name that climbs":              list(file(`".."`)),
		"the folder itself":               list(file(`"."`)),
		"no name":                         list(file(`""`)),
		"a path for a name":               list(file(`"../escape"`)),
		"an absolute path":                list(file(`"/etc/escape"`)),
		"a NUL":                           list(file(`"a\u0000b"`)),
		"a name twice":                    list(file(`"a"`), file(`"a"`)),
		"a name twice, once in escapes":   list(file(`"\u00e4"`), file(`"\udbff\udfc3\udbff\udfa4"`)),
		"names out of order":              list(file(`"b"`), file(`"a"`)),
		"a folder and a file of one name": list(`{"name":"a","type":"d","mode":"0755","obj":"FILE"}`, file(`"a"`)),
		"a type that is none":             list(`{"name":"a","type":"x","obj":"FILE"}`),
		"a size that is not the content's": list(
			`{"name":"a","type":"f","mode":"0644","size":1000000000000,"obj":"FILE"}`),
		"a folder that is none":        list(`{"name":"a","type":"d","mode":"0755","obj":"FILE"}`),
		"an object that is not there":  list(`{"name":"a","type":"f","size":1,"obj":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}`),
		"a folder that ends too early": `{"entries":[` + file(`"a"`),
		"no JSON":                      "x",
		"a list that is none":          `{"entries":{}}`,
		"nothing":                      `{}`,
	} {
		n++
		job := fmt.Sprintf("vb-%d", n)

		t.Run(name, func(t *testing.T) {
			forge(t, st, job, folder)

			outside := t.TempDir()
			target := filepath.Join(outside, "target")
			require.NoError(t, os.Mkdir(target, 0o700))

			_, err := e.Restore(t.Context(), engine.RestoreRequest{Root: open(t, target), Job: job}, nil)
			requireCode(t, engine.CodeRepositoryDamaged, err)

			entries, err := os.ReadDir(outside)
			require.NoError(t, err)
			assert.Len(t, entries, 1)
			assert.NoFileExists(t, "/etc/escape")
		})
	}
}
