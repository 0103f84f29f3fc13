package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
	"github.com/estiba-dev/estiba/mover/controllers/cluster"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/state"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// registry is the controllers' task.Tasks, on the runner's.
type registry struct {
	tasks     *runner.Tasks
	locations *locations
	keys      *keys
	config    config.Config
	clock     clock.PassiveClock

	mu    sync.Mutex
	known map[string]*known
}

// known is what the runner does not remember of a task.
type known struct {
	uid     types.UID
	attempt int32
	verb    protocol.Verb
	// rotating says that there were two master keys.
	rotating  bool
	at        v1alpha1.RepositoryReference
	cancelled time.Time
	forget    bool
	// alone says that an earlier run was ended for want of memory.
	alone bool
	// refused is why the task never got to the runner.
	refused *state.Failure
	since   time.Time
}

var _ task.Tasks = (*registry)(nil)

// keyTimeout bounds the look at the master key before a task is begun.
const keyTimeout = 10 * time.Second

// Begin begins the work, unless one of the same key is queued or runs.
func (r *registry) Begin(key string, w task.Work) {
	before, ran := r.tasks.Status(key)
	if ran && before.State != runner.Done {
		return
	}

	// The API server may take its time, and all other tasks are looked at meanwhile.
	ctx, stop := context.WithTimeout(context.Background(), keyTimeout)
	defer stop()

	password, previous, err := r.keys.passwords(ctx, w.Repository.ID)

	r.mu.Lock()
	defer r.mu.Unlock()

	// A task that has not ended can't be forgotten.
	if !r.tasks.Forget(key) {
		return
	}

	k := &known{uid: w.UID, attempt: w.Attempt, verb: verbOf(w), rotating: previous != "", at: w.Repository, since: r.clock.Now()}
	if old := r.known[key]; ran && old != nil && old.uid == w.UID {
		k.alone = old.alone || engine.CodeOf(before.Err) == engine.CodeMemoryExceeded
	}

	r.known[key] = k

	if err != nil {
		k.refused = keyFailure(err, w.Repository)
		return
	}

	r.tasks.Start(key, runner.Task{
		Request: protocol.Request{
			Version: protocol.Version, Verb: k.verb, Password: password, Previous: previous, Seed: w.Seed,
			Cache: protocol.Cache{
				Dir:           filepath.Join(r.config.CacheDir, w.Repository.ID),
				MetadataBytes: r.config.MetadataCache, ContentBytes: r.config.ContentCache,
			},
			Format: r.config.Format, Backup: timed(w.Backup), Restore: w.Restore, Forget: w.Forget,
		},
		Name: key, Volume: w.Volume, Turn: turnOf(w), Alone: k.alone,
		Frozen:      w.Frozen,
		OpenVolume:  w.OpenVolume,
		BeforeWrite: w.BeforeWrite,
		OpenStorage: func(ctx context.Context) (runner.Storage, error) {
			return r.locations.open(ctx, w.Repository, access{readOnly: readOnly(k.verb), attempt: w.Attempt})
		},
	})
}

// timed returns the request with what this node's kernel says. Where it doesn't say it, the
// engine goes by the kernel's defaults.
func timed(b *engine.BackupRequest) *engine.BackupRequest {
	if b == nil {
		return nil
	}

	r := *b
	r.WriteBack, _ = writeBack(virtualMemory)

	return &r
}

func verbOf(w task.Work) protocol.Verb {
	switch {
	case w.Create:
		return protocol.VerbCreateRepository
	case w.RotateKey:
		return protocol.VerbRotateKey
	case w.Backup != nil:
		return protocol.VerbBackup
	case w.Restore != nil:
		return protocol.VerbRestore
	case w.Forget != nil:
		return protocol.VerbForget
	default:
		return protocol.VerbOpenRepository
	}
}

// turnOf is what backups of one volume have one after the other: the next takes over what the one before it has
// stored, where side by side each would read and store all of it.
func turnOf(w task.Work) string {
	if w.Backup == nil {
		return ""
	}

	return strings.Join([]string{w.Repository.ID, w.Backup.Host, w.Backup.Path, w.Backup.Instance}, "\x00")
}

func keyFailure(err error, at v1alpha1.RepositoryReference) *state.Failure {
	f := &state.Failure{Finding: state.Finding{Reason: state.ReasonAPIUnavailable, Message: err.Error()}, NotYet: true}
	if permanentKeyError(err) {
		f.Reason, f.NotYet = state.ReasonMasterKeyMissing, false
		if errors.Is(err, cluster.ErrKeyInvalid) {
			f.Reason = state.ReasonMasterKeyInvalid
		}

		f.Message += "; put the exported Secret back (kubectl replace --force -f FILE)" + fingerprintOf(at)
	}

	return f
}

// Look returns how the work of the key stands.
func (r *registry) Look(key string) (task.Run, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()

	k, ok := r.known[key]
	if !ok || k.forget {
		return task.Run{}, false
	}

	run := task.Run{UID: k.uid, Task: state.Task{Attempt: k.attempt, CancelRequested: k.cancelled}}

	if k.refused != nil {
		run.State, run.Ended, run.Failure = state.TaskEnded, k.since, k.refused
		return run, true
	}

	s, ok := r.tasks.Status(key)
	if !ok {
		// It was not taken on any more.
		run.State, run.Ended, run.Failure = state.TaskEnded, k.since, drained()
		return run, true
	}

	r.fill(&run, k, s)

	return run, true
}

func (r *registry) fill(run *task.Run, k *known, s runner.Status) {
	run.Progress, run.Position, run.Behind = s.Progress, s.Place.Number, s.Place.Behind

	if s.Fences != nil {
		run.Fences = &task.Fences{Detail: s.Fences.Detail}
		for _, m := range s.Fences.Missing {
			run.Fences.Missing = append(run.Fences.Missing, string(m))
		}
	}

	// A worker that has told of its fences runs; one that has only got its slot may find nothing to open yet.
	run.Ran = s.Fences != nil

	switch {
	case s.State == runner.Done:
		run.State, run.Ended = state.TaskEnded, s.Ended
		run.Failure = failureOf(s.Err, k.at)

		// It was rotated after the worker had opened the repository, which opens by either of two.
		if k.rotating && engine.CodeOf(s.Err) == engine.CodeWrongKey {
			run.Failure.Retryable = true
		}

		run.Result = task.Result{Backup: s.Result.Backup, Restore: s.Result.Restore, Forget: s.Result.Forget}

		if run.Failure == nil {
			run.Failure = incomplete(k.verb, s.Result)
		}

		run.Ran = run.Ran || run.Failure == nil || !run.Failure.NotYet
	case run.Ran:
		run.State = state.TaskRunning
	default:
		run.State = state.TaskQueued
	}
}

// incomplete keeps a result without what was asked for from being taken for a success.
func incomplete(v protocol.Verb, r protocol.Result) *state.Failure {
	lacks := v == protocol.VerbBackup && (r.Backup == nil || r.Backup.SnapshotID == "") ||
		v == protocol.VerbRestore && (r.Restore == nil || r.Restore.SnapshotID == "" && r.Restore.Missing == "" && len(r.Restore.Kept) == 0) ||
		v == protocol.VerbForget && r.Forget == nil
	if !lacks {
		return nil
	}

	return &state.Failure{Finding: state.Finding{
		Reason: string(engine.CodeInternal), Message: fmt.Sprintf("the worker reported success at %s without saying of what", v),
	}}
}

func drained() *state.Failure {
	return &state.Failure{Finding: state.Finding{Reason: state.ReasonDraining, Message: "the daemon is being stopped; the next one goes on"}, Drained: true}
}

func failureOf(err error, at v1alpha1.RepositoryReference) *state.Failure {
	var blocked *task.BlockedError

	switch {
	case err == nil:
		return nil
	case errors.Is(err, runner.ErrDraining):
		return drained()
	case errors.As(err, &blocked):
		return &state.Failure{Finding: blocked.Finding, NotYet: blocked.NotYet}
	default:
		code := engine.CodeOf(err)
		return &state.Failure{Finding: state.Finding{Reason: string(code), Message: remedied(code, err.Error(), at)}, Retryable: code.Retryable()}
	}
}

// End ends the work of the key.
func (r *registry) End(key string, how task.Ending) {
	r.mu.Lock()
	defer r.mu.Unlock()

	k, ok := r.known[key]
	if !ok {
		return
	}

	if k.cancelled.IsZero() {
		k.cancelled = r.clock.Now()
	}

	switch how {
	case task.Cancel:
		r.tasks.Cancel(key)
	case task.Abort:
		r.tasks.Abort(key)
	case task.Forget:
		// One that runs is aborted, and nobody asks for it any more.
		if r.tasks.Forget(key) {
			delete(r.known, key)
			return
		}

		k.forget = true

		r.tasks.Abort(key)
	}
}

// changed is called whenever a task stands differently: it clears away those that nobody asks for.
func (r *registry) changed(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if k, ok := r.known[key]; ok && k.forget && r.tasks.Forget(key) {
		delete(r.known, key)
	}
}
