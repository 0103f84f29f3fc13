package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/credentials"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/state"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// scripted runs what the test says.
type scripted func(ctx context.Context, t runner.Task, w runner.Watch) (protocol.Result, error)

func (s scripted) Run(ctx context.Context, t runner.Task, w runner.Watch) (protocol.Result, error) {
	return s(ctx, t, w)
}

func newRegistry(t *testing.T, withKey bool, run scripted) (*registry, chan string) {
	t.Helper()

	scheme, err := newScheme()
	require.NoError(t, err)

	c := fake.NewClientBuilder().WithScheme(scheme).Build()
	k := &keys{reader: c, writer: c, namespace: "velero"}

	if withKey {
		require.NoError(t, k.Create(t.Context()))
		require.NoError(t, k.Create(t.Context()), "a second time is no error")
	}

	changes := make(chan string, 100)
	cfg := config.Default(config.RoleNode, func(string) string { return "" })
	r := &registry{keys: k, locations: newLocations(c, cfg, nil), config: cfg, clock: clock.RealClock{}, known: map[string]*known{}}
	r.tasks = runner.NewTasks(run, func(key string) {
		r.changed(key)
		changes <- key
	}, r.clock)

	return r, changes
}

// until looks whenever something changed, until the run stands as wanted.
func until(t *testing.T, r *registry, changes chan string, ok func(task.Run) bool) task.Run {
	t.Helper()

	for {
		if run, _ := r.Look("k"); ok(run) {
			return run
		}

		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			require.Fail(t, "nothing changed")
		}
	}
}

func ended(r task.Run) bool { return r.State == state.TaskEnded }

func restoreWork() task.Work {
	return task.Work{
		UID: "u", Attempt: 2, Repository: v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: "aaaaaaaaaaaaaaaaaaaaaaaaaa"},
		Restore:    &engine.RestoreRequest{Job: "vb-1"},
		OpenVolume: func(context.Context) (*os.File, error) { return nil, nil },
	}
}

func TestRegistryTellsHowARunStands(t *testing.T) {
	t.Parallel()

	proceed := make(chan struct{})
	r, changes := newRegistry(t, true, func(_ context.Context, task runner.Task, w runner.Watch) (protocol.Result, error) {
		w.Started()
		<-proceed
		w.Fences(protocol.Fences{})
		<-proceed

		if task.Request.Password == "" || task.Request.Verb != protocol.VerbRestore {
			return protocol.Result{}, errors.New("the request is not whole")
		}

		return protocol.Result{Restore: &engine.RestoreResult{SnapshotID: "k1"}}, nil
	})

	r.Begin("k", restoreWork())

	run, ok := r.Look("k")
	require.True(t, ok)
	assert.Equal(t, state.TaskQueued, run.State, "a slot alone is no worker that runs")
	assert.False(t, run.Ran)

	proceed <- struct{}{}

	run = until(t, r, changes, func(r task.Run) bool { return r.State == state.TaskRunning })
	assert.True(t, run.Ran)
	assert.Equal(t, int32(2), run.Attempt)

	proceed <- struct{}{}

	run = until(t, r, changes, ended)
	require.Nil(t, run.Failure)
	assert.Equal(t, "k1", run.Result.Restore.SnapshotID)

	r.End("k", task.Forget)

	_, ok = r.Look("k")
	assert.False(t, ok)
}

func TestARepositoryIsOpenedForReadingOnly(t *testing.T) {
	t.Parallel()

	verbs := make(chan protocol.Verb, 1)
	r, changes := newRegistry(t, true, func(_ context.Context, task runner.Task, _ runner.Watch) (protocol.Result, error) {
		verbs <- task.Request.Verb

		return protocol.Result{}, task.Request.Validate()
	})

	w := restoreWork()
	w.Restore, w.OpenVolume, w.Open = nil, nil, true
	r.Begin("k", w)

	verb := <-verbs
	assert.Equal(t, protocol.VerbOpenRepository, verb)
	assert.True(t, readOnly(verb), "a location that is read-only is never written to")
	assert.Nil(t, until(t, r, changes, ended).Failure)
}

func TestRegistryTellsWhyARunFailed(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		result protocol.Result
		err    error
		want   state.Failure
	}{
		"a code that may pass":      {err: engine.Errorf(engine.CodeStoreStalled, "m"), want: state.Failure{Finding: state.Finding{Reason: "StoreStalled", Message: remedied(engine.CodeStoreStalled, "m", restoreWork().Repository)}, Retryable: true}},
		"a code that doesn't":       {err: engine.Errorf(engine.CodeWrongKey, "m"), want: state.Failure{Finding: state.Finding{Reason: "WrongKey", Message: remedied(engine.CodeWrongKey, "m", restoreWork().Repository)}}},
		"a daemon that stops":       {err: engine.Errorf(engine.CodeCanceled, "m: %w", runner.ErrDraining), want: *drained()},
		"nothing to open yet":       {err: engine.Errorf(engine.CodeInternal, "m: %w", &task.BlockedError{Finding: state.Finding{Reason: "R", Message: "x"}, NotYet: true}), want: state.Failure{Finding: state.Finding{Reason: "R", Message: "x"}, NotYet: true}},
		"nothing to open ever":      {err: fmt.Errorf("m: %w", &task.BlockedError{Finding: state.Finding{Reason: "R", Message: "x"}}), want: state.Failure{Finding: state.Finding{Reason: "R", Message: "x"}}},
		"a success without results": {want: state.Failure{Finding: state.Finding{Reason: "InternalError", Message: "the worker reported success at restore without saying of what"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r, changes := newRegistry(t, true, func(context.Context, runner.Task, runner.Watch) (protocol.Result, error) { return c.result, c.err })
			r.Begin("k", restoreWork())

			run := until(t, r, changes, ended)
			require.NotNil(t, run.Failure)
			assert.Equal(t, c.want, *run.Failure)
			assert.Equal(t, !c.want.NotYet, run.Ran)
		})
	}
}

func TestRegistryNeedsTheKey(t *testing.T) {
	t.Parallel()

	r, _ := newRegistry(t, false, func(context.Context, runner.Task, runner.Watch) (protocol.Result, error) {
		return protocol.Result{}, errors.New("must not run")
	})
	r.Begin("k", restoreWork())

	run, _ := r.Look("k")
	assert.Equal(t, state.TaskEnded, run.State)
	assert.Equal(t, state.ReasonMasterKeyMissing, run.Failure.Reason)
}

func TestForgettingARunEndsIt(t *testing.T) {
	t.Parallel()

	r, changes := newRegistry(t, true, func(ctx context.Context, _ runner.Task, _ runner.Watch) (protocol.Result, error) {
		<-ctx.Done()

		return protocol.Result{}, engine.Errorf(engine.CodeCanceled, "stopped: %w", context.Cause(ctx))
	})
	r.Begin("k", restoreWork())
	r.End("k", task.Forget)
	<-changes

	_, ok := r.Look("k")
	assert.False(t, ok)

	r.mu.Lock()
	defer r.mu.Unlock()
	assert.Empty(t, r.known)
}

func TestKeys(t *testing.T) {
	t.Parallel()

	scheme, err := newScheme()
	require.NoError(t, err)

	bad := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: contract.MasterKeySecret}, Data: map[string][]byte{contract.MasterKeySecretKey: []byte("password")}}
	k := &keys{reader: fake.NewClientBuilder().WithScheme(scheme).WithObjects(bad).Build(), namespace: "velero"}

	_, _, err = k.Fingerprints(t.Context())
	require.Error(t, err)
	assert.True(t, permanentKeyError(err))
	assert.NotContains(t, err.Error(), "password")
}

// slow answers when it is let.
type slow struct {
	client.Reader
	asked, let chan struct{}
}

func (s slow) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	close(s.asked)
	<-s.let

	return s.Reader.Get(ctx, key, o, opts...)
}

func TestOtherTasksAreLookedAtWhileTheKeyIsRead(t *testing.T) {
	t.Parallel()

	r, changes := newRegistry(t, true, func(context.Context, runner.Task, runner.Watch) (protocol.Result, error) {
		return protocol.Result{Restore: &engine.RestoreResult{}}, nil
	})
	s := slow{Reader: r.keys.reader, asked: make(chan struct{}), let: make(chan struct{})}
	r.keys.reader = s

	begun := make(chan struct{})

	go func() {
		defer close(begun)

		r.Begin("k", restoreWork())
	}()

	<-s.asked

	_, ok := r.Look("other")
	assert.False(t, ok)

	r.End("other", task.Abort)
	close(s.let)
	<-begun
	until(t, r, changes, ended)
}

// rotating puts another master key into the place of the one that there is, which stays beside it.
func rotating(t *testing.T, k *keys) {
	t.Helper()

	next, err := credentials.NewMasterKey(rand.Reader)
	require.NoError(t, err)

	var s corev1.Secret

	require.NoError(t, k.reader.Get(t.Context(), client.ObjectKey{Namespace: k.namespace, Name: contract.MasterKeySecret}, &s))
	s.Data = map[string][]byte{contract.MasterKeySecretKey: next.Encode(), contract.MasterKeySecretPrevious: s.Data[contract.MasterKeySecretKey]}
	require.NoError(t, k.writer.Update(t.Context(), &s))
}

func TestThePreviousKeyGoesAlongWhileThereIsOne(t *testing.T) {
	t.Parallel()

	requests := make(chan protocol.Request, 2)
	r, changes := newRegistry(t, true, func(_ context.Context, task runner.Task, _ runner.Watch) (protocol.Result, error) {
		requests <- task.Request

		return protocol.Result{}, engine.Errorf(engine.CodeWrongKey, "m")
	})

	run := func() (protocol.Request, *state.Failure) {
		r.Begin("k", restoreWork())

		failure := until(t, r, changes, ended).Failure
		require.NotNil(t, failure)

		return <-requests, failure
	}

	before, print, err := r.keys.Fingerprints(t.Context())
	require.NoError(t, err)
	assert.Empty(t, print)

	first, failure := run()
	assert.Empty(t, first.Previous)
	assert.False(t, failure.Retryable)

	rotating(t, r.keys)

	now, previous, err := r.keys.Fingerprints(t.Context())
	require.NoError(t, err)
	assert.Equal(t, before, previous)
	assert.NotEqual(t, before, now)

	second, failure := run()
	assert.Equal(t, first.Password, second.Previous)
	assert.NotEqual(t, first.Password, second.Password)
	assert.True(t, failure.Retryable, "the key may have been rotated after the worker had opened the repository")
}

func backupWork() task.Work {
	return task.Work{
		UID: "u", Attempt: 1, Repository: v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "app", ID: "aaaaaaaaaaaaaaaaaaaaaaaaaa"},
		Backup:     &engine.BackupRequest{Host: "app", Path: "/persistentvolumeclaim/data", Instance: "pvc/u/v", Job: "vb-1"},
		OpenVolume: func(context.Context) (*os.File, error) { return nil, nil },
	}
}

func TestAWorkerThatHadNoMemoryIsTriedAgainAlone(t *testing.T) {
	t.Parallel()

	begun := make(chan runner.Task, 10)
	fail := make(chan error, 10)
	r, changes := newRegistry(t, true, func(_ context.Context, task runner.Task, _ runner.Watch) (protocol.Result, error) {
		begun <- task
		return protocol.Result{}, <-fail
	})

	for i, alone := range []bool{false, true, true} {
		fail <- map[bool]error{
			false: engine.Errorf(engine.CodeMemoryExceeded, "1 GiB"), true: engine.Errorf(engine.CodeStoreStalled, "no byte"),
		}[alone]

		w := backupWork()
		w.Attempt = int32(i + 1)
		r.Begin("k", w)
		assert.Equal(t, alone, (<-begun).Alone, "attempt %d", i+1)

		run := until(t, r, changes, ended)
		assert.True(t, run.Failure.Retryable)
	}

	fail <- nil

	w := backupWork()
	w.UID = "another"
	r.Begin("k", w)
	assert.False(t, (<-begun).Alone, "a namesake")
}

func TestBackupsOfOneVolumeTakeTurns(t *testing.T) {
	t.Parallel()

	first := backupWork()
	turn := turnOf(first)
	assert.NotEmpty(t, turn)

	for name, change := range map[string]func(*task.Work){
		"another repository": func(w *task.Work) { w.Repository.ID = "b" },
		"another namespace":  func(w *task.Work) { w.Backup.Host = "b" },
		"another volume":     func(w *task.Work) { w.Backup.Path = "b" },
		"its successor":      func(w *task.Work) { w.Backup.Instance = "b" },
		"a restore":          func(w *task.Work) { w.Backup, w.Restore = nil, &engine.RestoreRequest{} },
	} {
		w := backupWork()
		change(&w)
		assert.NotEqual(t, turn, turnOf(w), name)
	}

	w := backupWork()
	w.Backup.Job, w.Frozen = "vb-2", true
	assert.Equal(t, turn, turnOf(w))
}
