package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// Errors about repositories.
var (
	// ErrRepositoryNotReady says that the controller looked at the repository and can't use it.
	ErrRepositoryNotReady = errors.New("repository is not ready")
	// ErrRepositoryUnanswered says that nobody looked at the repository in time.
	ErrRepositoryUnanswered = errors.New("nobody has looked at the repository yet")
	// ErrRepositoryCreating says that the controller was still at work on the repository when time was up.
	ErrRepositoryCreating = errors.New("repository is still being created")
)

// EnsureRepository finds the Repository of a namespace's volumes in a backup
// storage location, or makes it. Errors wrap ErrNotInstalled or ErrConflict where they apply.
func (j *Jobs) EnsureRepository(ctx context.Context, location, volumesOf string) (*v1alpha1.Repository, error) {
	want := NewRepository(j.namespace, location, volumesOf)
	have := want.DeepCopy()

	// It nearly always exists: look first.
	err := j.get(ctx, want.Name, have)
	if err == nil {
		err = differ(want.Name, "spec", have.Spec, want.Spec)
	} else if apierrors.IsNotFound(err) && !errors.Is(err, ErrNotInstalled) {
		have = want.DeepCopy()
		_, err = j.ensure(ctx, have, func() error { return differ(want.Name, "spec", have.Spec, want.Spec) })
	}

	if err != nil {
		return nil, fmt.Errorf("ensure Repository %s/%s (backup storage location %q, volumes of namespace %q): %w",
			j.namespace, want.Name, location, volumesOf, err)
	}

	return have, nil
}

// RepositoryWait says how to wait for a repository.
type RepositoryWait struct {
	// Since is when whoever waits began. What the controller saw before is not
	// believed where it was bad: it is asked to look again. Zero believes all.
	Since time.Time
	// Place is where the location points now; see contract.Place. A repository that was found elsewhere is not
	// believed to be there, too. Empty believes all.
	Place string
	// Now is the time at the call.
	Now time.Time
	// Every is how often to look.
	Every time.Duration
	// Bound is how long to wait for a controller that says nothing, or nothing new.
	Bound time.Duration
	// Creation is how long to wait, in all, for a controller that says that it is at work.
	Creation time.Duration
}

// WaitRepository makes sure that the Repository exists and waits until it is
// ready and has its ID. It ends with ErrRepositoryNotReady, the reason and the
// message as soon as the controller has looked and says that it isn't, with
// ErrRepositoryCreating when the controller is at work on it for too long, and
// with ErrRepositoryUnanswered when the controller says nothing. Where the store
// doesn't answer the controller, which may pass, it waits for the next look; a
// repository that has its ID is returned all the same, for its jobs wait by themselves.
func (j *Jobs) WaitRepository(ctx context.Context, location, volumesOf string, w RepositoryWait) (*v1alpha1.Repository, error) {
	repo, err := j.EnsureRepository(ctx, location, volumesOf)
	if err != nil {
		return nil, err
	}

	if w.stale(repo) || w.elsewhere(repo) {
		j.poke(ctx, repo, w.Now)
	}

	tick := time.NewTicker(w.Every)
	defer tick.Stop()

	bound, creation := time.NewTimer(w.Bound), time.NewTimer(w.Creation)
	defer bound.Stop()
	defer creation.Stop()

	for {
		if usable, refused := w.judge(repo); usable {
			return repo, nil
		} else if refused {
			return nil, givenUp(repo)
		}

		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", givenUp(repo), ctx.Err())
		case <-creation.C:
			return nil, givenUp(repo)
		case <-bound.C:
			if !creating(repo) {
				return nil, givenUp(repo)
			}
		case <-tick.C:
		}

		var next v1alpha1.Repository
		if err := j.client.Get(ctx, types.NamespacedName{Namespace: repo.Namespace, Name: repo.Name}, &next); err == nil {
			repo = &next
		}
		// An API server that doesn't answer now may answer at the next look; the bounds hold.
	}
}

// judge reports whether the repository can be used as it was seen, or won't be by waiting longer.
func (w RepositoryWait) judge(repo *v1alpha1.Repository) (usable, refused bool) {
	looked := !w.stale(repo)
	ready := repo.Status.Phase == v1alpha1.RepositoryReady || looked && passing(repo)

	usable = repo.Status.ID != "" && !w.elsewhere(repo) && ready
	refused = repo.Status.Phase == v1alpha1.RepositoryNotReady && looked && !passing(repo)

	return usable, refused
}

// stale reports whether the repository was found unusable before Since. Times in
// objects are whole seconds.
func (w RepositoryWait) stale(repo *v1alpha1.Repository) bool {
	if repo.Status.Phase != v1alpha1.RepositoryNotReady || w.Since.IsZero() {
		return false
	}

	at := repo.Status.LastCheckedTimestamp

	return at == nil || at.Time.Before(w.Since.Truncate(time.Second))
}

// elsewhere reports whether the repository was last found where its location doesn't point any more.
// A controller that writes no place is of an earlier release.
func (w RepositoryWait) elsewhere(repo *v1alpha1.Repository) bool {
	return w.Place != "" && repo.Status.Place != "" && repo.Status.Place != w.Place
}

// passing reports whether the repository is not ready for something that passes by itself: the controller looks again
// within seconds. The words are those of the engine's failures (mover/engine) that trying again can help.
func passing(repo *v1alpha1.Repository) bool {
	if repo.Status.Phase != v1alpha1.RepositoryNotReady {
		return false
	}

	switch repo.Status.Reason {
	case "StoreUnavailable", "StoreStalled", "StoreLostWrite", "ClockSkewed", "WorkerDied", "StoreError":
		return true
	default:
		return false
	}
}

func creating(repo *v1alpha1.Repository) bool {
	return (repo.Status.Phase == v1alpha1.RepositoryNew || repo.Status.Phase == "") && repo.Status.Reason != ""
}

// givenUp returns the error about a repository that is not ready when time is up.
func givenUp(repo *v1alpha1.Repository) error {
	what := fmt.Sprintf("Repository %s/%s (backup storage location %q, volumes of namespace %q)",
		repo.Namespace, repo.Name, repo.Spec.BackupStorageLocation, repo.Spec.Namespace)

	said := fmt.Sprintf("%s: %s", repo.Status.Reason, repo.Status.Message)
	if at := repo.Status.LastCheckedTimestamp; at != nil {
		said += " (looked at " + at.UTC().Format(time.RFC3339) + ")"
	}

	switch {
	case repo.Status.Phase == v1alpha1.RepositoryNotReady:
		return fmt.Errorf("%s: %w: %s", what, ErrRepositoryNotReady, said)
	case creating(repo):
		return fmt.Errorf("%s: %w: %s", what, ErrRepositoryCreating, said)
	default:
		return fmt.Errorf("wait for %s: %w", what, ErrRepositoryUnanswered)
	}
}

// poke asks the controller to look at the repository again. If that fails, it
// looks on its schedule.
func (j *Jobs) poke(ctx context.Context, repo *v1alpha1.Repository, now time.Time) {
	text := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, contract.AnnotationLookAgain, now.UTC().Format(time.RFC3339))
	_ = j.client.Patch(ctx, repo.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(text)))
}
