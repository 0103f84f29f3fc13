package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

const (
	// lookAgain is how often a repository that is ready is looked for in its bucket.
	lookAgain = 10 * time.Minute
	// retryFirst and retryLast bound the wait after a failure; it doubles in between.
	retryFirst = 5 * time.Second
	retryLast  = 5 * time.Minute
)

// Repositories finds and makes repositories.
type Repositories struct {
	*Cluster

	mu       sync.Mutex
	failures map[string]int
}

// NewRepositories makes one.
func NewRepositories(c *Cluster) *Repositories {
	return &Repositories{Cluster: c, failures: map[string]int{}}
}

// outcome is what a look at a repository came to.
type outcome struct {
	phase  v1alpha1.RepositoryPhase
	id     string
	key    string
	reason string
	text   string
	after  time.Duration
}

func notReady(reason, format string, args ...any) outcome {
	return outcome{phase: v1alpha1.RepositoryNotReady, reason: reason, text: fmt.Sprintf(format, args...)}
}

func storeFailure(err error) outcome {
	reason := state.ReasonStoreError
	if code := engine.CodeOf(err); code != engine.CodeInternal {
		reason = string(code)
	}

	return notReady(reason, "%v", err)
}

// RepositoryKey is the key of a repository's work in the registry of tasks.
func RepositoryKey(name string) string { return "repository/" + name }

// Reconcile finds one Repository in its bucket, or makes it there.
func (r *Repositories) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	repo := &v1alpha1.Repository{}

	found, err := r.read(ctx, req.Name, repo)
	if !found {
		if err == nil {
			r.Tasks.End(RepositoryKey(req.Name), task.Forget)
		}

		return ctrl.Result{}, err
	}

	out, err := r.see(ctx, repo)
	if err != nil {
		return ctrl.Result{}, err
	}

	after := r.wait(repo.Name, out)

	before := repo.DeepCopy()
	r.fill(repo, out)

	if err := r.patchStatus(ctx, repo, before); err != nil {
		return settle(0, err)
	}

	r.show(ctx, repo)

	if before.Status.Phase != repo.Status.Phase || before.Status.Reason != repo.Status.Reason {
		r.event(repo, out.phase == v1alpha1.RepositoryNotReady, repo.Status.Reason, repo.Status.Message)
	}

	return settle(after, nil)
}

// show counts the repositories by how they stand. The cache may not have the one just written.
func (r *Repositories) show(ctx context.Context, latest *v1alpha1.Repository) {
	var list v1alpha1.RepositoryList
	if r.listHere(ctx, &list) != nil {
		// The next look shows them.
		return
	}

	counts := map[[2]string]int{}

	for i := range list.Items {
		s := list.Items[i].Status
		if list.Items[i].Name == latest.Name {
			s = latest.Status
		}

		counts[[2]string{string(s.Phase), s.Reason}]++
	}

	r.Metrics.Repositories(counts)
}

func (r *Repositories) fill(repo *v1alpha1.Repository, out outcome) {
	// A worker's message may quote anything.
	out.text = state.Cut(out.text)

	s := &repo.Status
	now := metav1.NewTime(r.Clock.Now())

	if out.phase == v1alpha1.RepositoryNotReady && out.after > 0 {
		// A look that goes on has found nothing yet: whoever waits for a fresh one must not take this for it.
		return
	}

	// A look that finds the same is not worth a write each time, but where somebody may wait for it.
	same := out.phase != v1alpha1.RepositoryNotReady && (out.id == "" || s.ID == out.id) && s.Phase == out.phase && s.Reason == out.reason && s.Message == out.text && s.LastCheckedTimestamp != nil &&
		now.Sub(s.LastCheckedTimestamp.Time) < lookAgain/2
	if same {
		return
	}

	s.Phase, s.Reason, s.Message, s.LastCheckedTimestamp = out.phase, out.reason, out.text, &now

	if out.id != "" {
		s.ID, s.KeyFingerprint = out.id, out.key
		// The ID came out of a path, so that it makes one.
		s.Path, _ = contract.RepositoryPath(repo.Spec.Namespace, out.id)
	}
}

// wait gives when to look again, and remembers failures.
func (r *Repositories) wait(name string, out outcome) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()

	if out.phase == v1alpha1.RepositoryReady {
		delete(r.failures, name)
	}

	if out.after > 0 || out.phase != v1alpha1.RepositoryNotReady {
		return out.after
	}

	r.failures[name]++
	after := retryFirst

	for i := 1; i < r.failures[name] && after < retryLast; i++ {
		after *= 2
	}

	return min(after, retryLast)
}

// see looks at the location, the key and the bucket, and has the repository made or opened.
func (r *Repositories) see(ctx context.Context, repo *v1alpha1.Repository) (outcome, error) {
	var location velerov1.BackupStorageLocation

	found, err := r.read(ctx, repo.Spec.BackupStorageLocation, &location)
	if err != nil {
		return outcome{}, err
	}

	if !found {
		return notReady(state.ReasonLocationNotFound, "BackupStorageLocation %s (spec.backupStorageLocation) does not exist", repo.Spec.BackupStorageLocation), nil
	}

	bucket, err := r.Buckets.Open(ctx, &location)
	if err != nil {
		return storeFailure(fmt.Errorf("open BackupStorageLocation %s: %w", location.Name, err)), nil
	}

	fingerprint, err := r.Keys.Fingerprint(ctx)
	if err != nil && !errors.Is(err, ErrKeyMissing) && !errors.Is(err, ErrKeyInvalid) {
		return outcome{}, fmt.Errorf("read the master key: %w", err)
	}

	if errors.Is(err, ErrKeyInvalid) {
		return notReady(state.ReasonMasterKeyInvalid, "Secret %s: %v; put the exported Secret back (kubectl replace --force -f FILE)", contract.MasterKeySecret, err), nil
	}

	s, err := look(ctx, bucket, repo.Spec.Namespace, fingerprint)
	if err != nil {
		return storeFailure(fmt.Errorf("BackupStorageLocation %s: %w", location.Name, err)), nil
	}

	v := view{repo: repo, location: &location, bucket: bucket, fingerprint: fingerprint, survey: s}
	if fingerprint == "" {
		return r.firstKey(ctx, v)
	}

	return r.settleRepository(ctx, v)
}

// view is all that was seen of one repository.
type view struct {
	repo        *v1alpha1.Repository
	location    *velerov1.BackupStorageLocation
	bucket      Bucket
	fingerprint string
	survey      survey
}

func (v view) readOnly() bool {
	return v.location.Spec.AccessMode == velerov1.BackupStorageLocationAccessModeReadOnly
}

// firstKey makes the master key, but never where one was lost: a bucket that
// holds the fingerprint of some key needs that very key.
func (r *Repositories) firstKey(ctx context.Context, v view) (outcome, error) {
	const remedy = "there is no Secret %s with a master key, but BackupStorageLocation %s holds repositories made with the key of fingerprint %s; " +
		"put the exported Secret back (kubectl apply -f FILE)"

	if v.survey.keyed {
		return notReady(state.ReasonMasterKeyMissing, remedy, contract.MasterKeySecret, v.location.Name, v.survey.foreign), nil
	}

	if v.readOnly() {
		return readOnlyOutcome(v), nil
	}

	other, foreign, err := r.otherKeyed(ctx, v.location.Name)
	if err != nil {
		return outcome{}, err
	}

	if other != "" {
		return notReady(state.ReasonMasterKeyMissing, remedy, contract.MasterKeySecret, other, foreign), nil
	}

	if err := r.Keys.Create(ctx); err != nil {
		return outcome{}, fmt.Errorf("make the master key: %w", err)
	}

	r.event(v.repo, false, "MasterKeyCreated", fmt.Sprintf(
		"made the master key in Secret %s; export it and keep it apart from the cluster: without it no backup can be read", contract.MasterKeySecret))

	return outcome{phase: phaseOfRepository(v.repo), reason: state.ReasonRepositoryCreating, text: "made the master key", after: r.Bounds.Soon}, nil
}

// otherKeyed gives a location, other than the named one, that holds key files. One that can't be
// looked at doesn't count: an install whose second location is away must be able to begin.
func (r *Repositories) otherKeyed(ctx context.Context, but string) (location, fingerprint string, err error) {
	var list velerov1.BackupStorageLocationList
	if err := r.listHere(ctx, &list); err != nil {
		return "", "", fmt.Errorf("list BackupStorageLocations: %w", err)
	}

	for i := range list.Items {
		if list.Items[i].Name == but {
			continue
		}

		bucket, err := r.Buckets.Open(ctx, &list.Items[i])
		if err != nil {
			continue
		}

		// The namespace doesn't matter for whether there are keys at all.
		s, err := look(ctx, bucket, "default", "")
		if err == nil && s.keyed {
			return list.Items[i].Name, s.foreign, nil
		}
	}

	return "", "", nil
}

func readOnlyOutcome(v view) outcome {
	return notReady(state.ReasonLocationReadOnly, "BackupStorageLocation %s is read-only (spec.accessMode) and holds no repository of namespace %s yet",
		v.location.Name, v.repo.Spec.Namespace)
}

func phaseOfRepository(repo *v1alpha1.Repository) v1alpha1.RepositoryPhase {
	if repo.Status.Phase == "" {
		return v1alpha1.RepositoryNew
	}

	return repo.Status.Phase
}

func (r *Repositories) settleRepository(ctx context.Context, v view) (outcome, error) {
	id := v.survey.choose(v.repo.Status.ID)

	switch {
	case id == "" && v.survey.keyed && !v.survey.fits:
		return notReady(state.ReasonWrongKey,
			"the master key in Secret %s has fingerprint %s, and BackupStorageLocation %s holds repositories made with that of fingerprint %s; put the exported Secret of that key back (kubectl replace --force -f FILE), or use another location",
			contract.MasterKeySecret, v.fingerprint, v.location.Name, v.survey.foreign), nil
	case id == "" && v.readOnly():
		return readOnlyOutcome(v), nil
	case id == "":
		return r.reserve(ctx, v)
	}

	made := slices.Contains(v.survey.made, id)

	switch {
	case v.repo.Status.Phase == v1alpha1.RepositoryReady && v.repo.Status.ID == id && made:
		return ready(v, id), nil
	case !made && v.readOnly():
		return readOnlyOutcome(v), nil
	default:
		return r.open(v, id), nil
	}
}

func ready(v view, id string) outcome {
	return outcome{phase: v1alpha1.RepositoryReady, id: id, key: v.fingerprint, reason: state.ReasonRepositoryReady, after: lookAgain}
}

// reserve writes the key file of a new repository. It comes before the
// repository, so that there never is one of which nobody knows the key.
func (r *Repositories) reserve(ctx context.Context, v view) (outcome, error) {
	id, err := r.NewID()
	if err != nil {
		return outcome{}, fmt.Errorf("make the ID of a repository: %w", err)
	}

	path, err := contract.KeyPath(v.repo.Spec.Namespace, id)
	if err != nil {
		return outcome{}, fmt.Errorf("path of the key file: %w", err)
	}

	content, err := json.Marshal(contract.KeyFile{Version: 1, Fingerprint: v.fingerprint, Created: r.Clock.Now().UTC().Format(time.RFC3339)})
	if err != nil {
		return outcome{}, fmt.Errorf("encode key file: %w", err)
	}

	if err := v.bucket.PutIfAbsent(ctx, path, content); err != nil {
		return storeFailure(fmt.Errorf("write %s in BackupStorageLocation %s: %w", path, v.location.Name, err)), nil
	}

	return outcome{phase: phaseOfRepository(v.repo), reason: state.ReasonRepositoryCreating, text: "makes the repository " + id, after: r.Bounds.Soon}, nil
}

// open has a worker make the repository, or find that it is there and opens with our key.
func (r *Repositories) open(v view, id string) outcome {
	var (
		key    = RepositoryKey(v.repo.Name)
		run, _ = r.Tasks.Look(key)
		busy   = outcome{phase: phaseOfRepository(v.repo), reason: state.ReasonRepositoryCreating, text: "makes or opens the repository " + id, after: r.Bounds.Poll}
	)

	if busy.phase == v1alpha1.RepositoryNotReady {
		// Another attempt is no news before it has ended.
		busy.reason, busy.text = v.repo.Status.Reason, v.repo.Status.Message
	}

	if run.State != state.TaskNone && run.UID != v.repo.UID {
		r.Tasks.End(key, task.Forget)
		return busy
	}

	switch run.State {
	case state.TaskNone:
	case state.TaskQueued, state.TaskRunning:
		return busy
	case state.TaskEnded:
		r.Tasks.End(key, task.Forget)

		if run.Failure == nil {
			return ready(v, id)
		}

		return notReady(run.Failure.Reason, "repository %s in BackupStorageLocation %s: %s", id, v.location.Name, run.Failure.Message)
	}

	r.Tasks.Begin(key, task.Work{
		UID: v.repo.UID, Attempt: 1, Create: !v.readOnly(), Open: v.readOnly(),
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: v.location.Name, Namespace: v.repo.Spec.Namespace, ID: id},
	})

	return busy
}
