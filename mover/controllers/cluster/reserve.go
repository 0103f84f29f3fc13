package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

// reservation is the ID of a repository that is to be made, and what its keys are made of.
type reservation struct{ id, seed string }

// known returns what this process has reserved, and takes from the survey what it knows to be hollow.
func (r *Repositories) known(v *view) reservation {
	r.mu.Lock()
	defer r.mu.Unlock()

	v.survey.made = slices.DeleteFunc(v.survey.made, func(id string) bool { return r.hollow[id] })

	return r.reserved[v.repo.Name]
}

// reserve writes the key file of a new repository. It comes before the
// repository, so that there never is one of which nobody knows the key. Who reserves an ID is
// the only one who ever makes that repository: one that was reserved and not made, because its
// controller died, is left, and another one is reserved. Two controllers may so make two
// repositories, and never one with two sets of keys.
func (r *Repositories) reserve(ctx context.Context, v view) (outcome, error) {
	id, err := r.NewID()
	if err != nil {
		return outcome{}, fmt.Errorf("make the ID of a repository: %w", err)
	}

	path, err := contract.KeyPath(v.repo.Spec.Namespace, id)
	if err != nil {
		return outcome{}, fmt.Errorf("path of the key file: %w", err)
	}

	content, err := json.Marshal(contract.KeyFile{Version: 1, Fingerprint: v.ours.current, Created: r.Clock.Now().UTC().Format(time.RFC3339)})
	if err != nil {
		return outcome{}, fmt.Errorf("encode key file: %w", err)
	}

	if err := v.bucket.PutIfAbsent(ctx, path, content); err != nil {
		return storeFailure(fmt.Errorf("write %s in BackupStorageLocation %s: %w", path, v.location.Name, err)), nil
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.reserved[v.repo.Name] = reservation{id, r.NewSeed()}

	return outcome{phase: v.busyPhase(), reason: state.ReasonRepositoryCreating, text: "makes the repository " + id, after: r.Bounds.Soon}, nil
}

// open has a worker make the repository, or find that it is there and opens with our key.
func (r *Repositories) open(ctx context.Context, v view, at reservation) (outcome, error) {
	var (
		id     = at.id
		key    = RepositoryKey(v.repo.Name)
		run, _ = r.Tasks.Look(key)
		busy   = outcome{phase: v.busyPhase(), reason: state.ReasonRepositoryCreating, text: "makes or opens the repository " + id, after: r.Bounds.Poll}
	)

	if busy.phase == v1alpha1.RepositoryNotReady {
		// Another attempt is no news before it has ended.
		busy.reason, busy.text = v.repo.Status.Reason, v.repo.Status.Message
	}

	if run.State != state.TaskNone && run.UID != v.repo.UID {
		r.Tasks.End(key, task.Forget)
		return busy, nil
	}

	switch run.State {
	case state.TaskNone:
	case state.TaskQueued, state.TaskRunning:
		return busy, nil
	case state.TaskEnded:
		r.Tasks.End(key, task.Forget)

		if run.Failure == nil {
			r.made(v.repo.Name)

			return r.rotateRepository(ctx, v, id)
		}

		if run.Failure.Reason == string(engine.CodeRepositoryNotFound) && at.seed == "" && !v.readOnly() {
			// Somebody began to make it, and only they may go on.
			r.mu.Lock()
			defer r.mu.Unlock()

			r.hollow[id] = true

			return busy, nil
		}

		return notReady(run.Failure.Reason, "repository %s in BackupStorageLocation %s: %s", id, v.location.Name, run.Failure.Message), nil
	}

	r.Tasks.Begin(key, task.Work{
		UID: v.repo.UID, Attempt: 1, Create: !v.readOnly(), Open: v.readOnly(), Seed: at.seed,
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: v.location.Name, Namespace: v.repo.Spec.Namespace, ID: id},
	})

	return busy, nil
}

// made forgets what a repository that is there was made of.
func (r *Repositories) made(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	delete(r.reserved, name)
}
