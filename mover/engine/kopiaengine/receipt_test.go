package kopiaengine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

func TestARestoreSaysWhatTheSnapshotLacks(t *testing.T) {
	needRoot(t)

	volume := t.TempDir()
	_, err := tree.Unkept(volume)
	require.NoError(t, err)

	st := store(t, t.TempDir())
	saved := backup(t, newEngine(t, st), volume, "vb-1")
	require.NotEmpty(t, saved.Summary.Omissions)

	// Of the backup, another cluster has the bucket alone.
	res := restore(t, elsewhere(t, st), "vb-1", t.TempDir())
	require.Len(t, res.Summary.Omissions, len(saved.Summary.Omissions))

	for i, o := range saved.Summary.Omissions {
		o.Examples = o.Examples[:min(3, len(o.Examples))]
		assert.Equal(t, o, res.Summary.Omissions[i])
	}
}

func TestAReceiptThatCannotBeReadKeepsNobodyFromTheData(t *testing.T) {
	for name, test := range map[string]struct {
		receipt *string
		says    string
	}{
		"none":             {nil, "has no tag estiba-omissions"},
		"no document":      {ptr("nothing is missing, honestly"), "unreadable receipt"},
		"a later version":  {ptr(`{"version":2}`), "version 2 is not known"},
		"a negative count": {ptr(`{"version":1,"omissions":[{"reason":"Socket","count":-1}]}`), "omissions[0].count is -1"},
	} {
		t.Run(name, func(t *testing.T) {
			volume, target := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o600))

			st := store(t, t.TempDir())
			id := backup(t, newEngine(t, st), volume, "vb-1").SnapshotID
			resign(t, settings(t, st), manifest.ID(id), test.receipt)

			res := restore(t, elsewhere(t, st), "vb-1", target)
			requireSame(t, volume, target)
			require.Len(t, res.Summary.Omissions, 1)
			assert.Equal(t, engine.OmittedUnknown, res.Summary.Omissions[0].Reason)
			assert.Contains(t, strings.Join(res.Summary.Omissions[0].Examples, " "), test.says)
		})
	}
}

func ptr(s string) *string { return &s }

// resign replaces the receipt of a snapshot, or takes it away.
func resign(t *testing.T, s repository.Settings, id manifest.ID, receipt *string) {
	t.Helper()

	rep, err := repository.Open(t.Context(), s)
	require.NoError(t, err)

	defer func() { require.NoError(t, rep.Close(context.Background())) }() // The test's context is done by then.

	require.NoError(t, repo.WriteSession(t.Context(), rep, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		m, err := snapshot.LoadSnapshot(ctx, w, id)
		require.NoError(t, err)
		require.NoError(t, w.DeleteManifest(ctx, id))

		const tag = "tag:" + contract.TagOmissions

		require.Contains(t, m.Tags, tag)
		delete(m.Tags, tag)

		if receipt != nil {
			m.Tags[tag] = *receipt
		}

		_, err = snapshot.SaveSnapshot(ctx, w, m)

		return err
	}))
}
