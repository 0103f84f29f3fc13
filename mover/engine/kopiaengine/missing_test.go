package kopiaengine_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/engine/kopiaengine"
)

// A job was interrupted, and finished after that. Where what says so can't be read, what the first attempt has left
// doesn't mean that the snapshot is missing: no volume is left empty for it.
func TestAnUnfinishedSnapshotIsNoProofThatTheFinishedOneIsMissing(t *testing.T) {
	needRoot(t)

	volume, dir := t.TempDir(), t.TempDir()
	randomFiles(t, volume, 60, 1<<20)
	newEngine(t, store(t, dir))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	st := &testStorage{Storage: store(t, dir)}
	st.onPut = func(_ context.Context, id blob.ID) error {
		if strings.HasPrefix(string(id), "p") {
			cancel()
		}

		return nil
	}

	r := request(t, volume, "vb-1")
	r.Parallel = 1

	_, err := kopiaengine.New(kopiaengine.Config{Repository: settings(t, st), CheckpointInterval: 20 * time.Millisecond}).Backup(ctx, r, nil)
	requireCode(t, engine.CodeCanceled, err)

	first := blobsIn(t, dir)

	backup(t, elsewhere(t, store(t, dir)), volume, "vb-1")

	var second []string

	for id := range blobsIn(t, dir) {
		if _, there := first[id]; !there {
			second = append(second, id)
		}
	}

	damageBlobs(t, dir, "q", second, faults["flipped"])

	_, err = elsewhere(t, store(t, dir)).Restore(t.Context(), engine.RestoreRequest{
		Root: open(t, t.TempDir()), Job: "vb-1", Existing: engine.ExistingOverwrite, OnMissing: engine.MissingEmpty,
	}, nil)
	requireCode(t, engine.CodeRepositoryDamaged, err)
	require.ErrorContains(t, err, "list of snapshots")
}
