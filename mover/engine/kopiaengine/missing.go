package kopiaengine

import (
	"context"
	"errors"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

var errMissing = errors.New("the repository has no finished snapshot")

// choose returns the snapshot to restore, and says in the result which one it is; none
// where the volume is to be left as it is.
func choose(ctx context.Context, rep repo.Repository, r engine.RestoreRequest, res *engine.RestoreResult) (*snapshot.Manifest, error) {
	m, err := snapshotOfJob(ctx, rep, r)

	if missing := errors.Is(err, errMissing); missing && r.OnMissing == engine.MissingEmpty {
		res.Missing = err.Error()

		return nil, nil //nolint:nilnil // The answer is "none", and that is well.
	} else if missing && r.OnMissing == engine.MissingPrevious {
		res.Missing = err.Error()
		m, err = previous(ctx, rep, *r.Previous, res.Missing)
	}

	if err != nil {
		return nil, err
	}

	res.SnapshotID = string(m.ID)
	if res.Missing != "" {
		s := listing(m)
		res.Instead = &s
	}

	return m, nil
}

// previous finds the newest finished snapshot that may stand in.
func previous(ctx context.Context, rep repo.Repository, p engine.Previous, missing string) (*snapshot.Manifest, error) {
	ms, err := find(ctx, rep, map[string]string{
		snapshot.HostnameLabel: p.Host,
		snapshot.UsernameLabel: contract.SnapshotUser,
		snapshot.PathLabel:     p.Path,
	})
	if err != nil {
		return nil, err
	}

	for _, m := range newest(ms) {
		if s := listing(m); complete(m) && s.Tags[contract.TagJob] != "" && p.Fits(s) {
			return m, nil
		}
	}

	return nil, engine.Errorf(engine.CodeSnapshotNotFound, "%s, nor one of %s of namespace %s from before %s",
		missing, p.Path, p.Host, p.Before.UTC().Format("2006-01-02T15:04:05Z07:00"))
}
