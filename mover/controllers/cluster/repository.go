package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
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

	changes *Changes

	mu       sync.Mutex
	failures map[string]int
	// reserved are the repositories that this process has reserved, by the Repository's name. Nobody
	// else makes them, now or later: the seed is nowhere else.
	reserved map[string]reservation
	// hollow are the IDs of folders in which there is no repository.
	hollow   map[string]bool
	rotation rotation
}

// NewRepositories makes one.
func NewRepositories(c *Cluster, changes *Changes) *Repositories {
	return &Repositories{
		Cluster: c, changes: changes, failures: map[string]int{}, reserved: map[string]reservation{}, hollow: map[string]bool{},
		rotation: rotation{waiting: map[string]bool{}, covered: map[string]time.Time{}},
	}
}

// outcome is what a look at a repository came to.
type outcome struct {
	phase  v1alpha1.RepositoryPhase
	id     string
	key    string
	reason string
	text   string
	after  time.Duration
	// place is where the location pointed; see contract.Place.
	place string
	// current reports whether the rotation of the master key is over for it; nil where that wasn't seen.
	current *metav1.Condition
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
			r.giveWay(req.Name)
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

	if out.phase != v1alpha1.RepositoryReady {
		r.giveWay(repo.Name)
	}

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

	if out.current != nil {
		out.current.LastTransitionTime = now
		meta.SetStatusCondition(&s.Conditions, *out.current)
	}

	// A look that finds the same is not worth a write each time, but where somebody may wait for it.
	same := out.phase != v1alpha1.RepositoryNotReady && (out.id == "" || s.ID == out.id && s.KeyFingerprint == out.key && s.Place == out.place) && s.Phase == out.phase && s.Reason == out.reason && s.Message == out.text && s.LastCheckedTimestamp != nil &&
		now.Sub(s.LastCheckedTimestamp.Time) < lookAgain/2
	if same {
		return
	}

	s.Phase, s.Reason, s.Message, s.LastCheckedTimestamp = out.phase, out.reason, out.text, &now

	if out.id != "" {
		s.ID, s.KeyFingerprint, s.Place = out.id, out.key, out.place
		// The ID came out of a path, so that it makes one.
		s.Path, _ = contract.RepositoryPath(repo.Spec.Namespace, out.id)
	}
}

// wait returns when to look again, and remembers failures.
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

	var ours prints

	ours.current, ours.previous, err = r.Keys.Fingerprints(ctx)
	if err != nil && !errors.Is(err, ErrKeyMissing) && !errors.Is(err, ErrKeyInvalid) {
		return outcome{}, fmt.Errorf("read the master key: %w", err)
	}

	if errors.Is(err, ErrKeyInvalid) {
		return notReady(state.ReasonMasterKeyInvalid, "Secret %s: %v; put the exported Secret back (kubectl replace --force -f FILE)", contract.MasterKeySecret, err), nil
	}

	s, err := look(ctx, bucket, repo.Spec.Namespace, ours)
	if err != nil {
		return storeFailure(fmt.Errorf("BackupStorageLocation %s: %w", location.Name, err)), nil
	}

	v := view{repo: repo, location: &location, bucket: bucket, ours: ours, survey: s}
	decide := r.settleRepository

	if ours.current == "" {
		decide = r.firstKey
	}

	out, err := decide(ctx, v)
	if err != nil {
		return outcome{}, err
	}

	if out.place, err = jobs.Place(&location); err != nil {
		return outcome{}, err
	}

	return out, nil
}

// view is all that was seen of one repository.
type view struct {
	repo     *v1alpha1.Repository
	location *velerov1.BackupStorageLocation
	bucket   Bucket
	ours     prints
	survey   survey
}

func (v view) readOnly() bool {
	return v.location.Spec.AccessMode == velerov1.BackupStorageLocationAccessModeReadOnly
}

func readOnlyOutcome(v view) outcome {
	return notReady(state.ReasonLocationReadOnly, "BackupStorageLocation %s is read-only (spec.accessMode) and holds no repository of namespace %s yet",
		v.location.Name, v.repo.Spec.Namespace)
}

// busyPhase returns the phase of a repository that is being made or opened. One that was ready and is not
// where the location points is as good as new: who believed in it would send volumes where nothing is.
func (v view) busyPhase() v1alpha1.RepositoryPhase {
	s := v.repo.Status

	lost := s.Phase == v1alpha1.RepositoryReady && !slices.Contains(v.survey.made, s.ID)
	if s.Phase == "" || lost {
		return v1alpha1.RepositoryNew
	}

	return s.Phase
}

func (r *Repositories) settleRepository(ctx context.Context, v view) (outcome, error) {
	own := r.known(&v)
	id := v.survey.choose(v.repo.Status.ID, own.id)

	switch {
	case id == "" && v.survey.keyed && !v.survey.fits:
		return notReady(state.ReasonWrongKey,
			"the master key in Secret %s has fingerprint %s, and BackupStorageLocation %s holds repositories made with that of fingerprint %s; put the exported Secret of that key back (kubectl replace --force -f FILE), or use another location",
			contract.MasterKeySecret, v.ours.current, v.location.Name, v.survey.foreign), nil
	case id == "" && v.readOnly():
		return readOnlyOutcome(v), nil
	case id == "":
		return r.reserve(ctx, v)
	}

	made := slices.Contains(v.survey.made, id)

	switch {
	case v.repo.Status.Phase == v1alpha1.RepositoryReady && v.repo.Status.ID == id && made:
		return r.rotateRepository(ctx, v, id)
	case !made && v.readOnly():
		return readOnlyOutcome(v), nil
	case id == own.id:
		return r.open(ctx, v, own)
	default:
		return r.open(ctx, v, reservation{id: id})
	}
}

func ready(v view, id string) outcome {
	return outcome{phase: v1alpha1.RepositoryReady, id: id, key: v.survey.under[id], reason: state.ReasonRepositoryReady, after: lookAgain}
}
