package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// Errors about repositories.
var (
	// ErrRepositoryNotReady says that the controller looked at the repository and can't use it.
	ErrRepositoryNotReady = errors.New("repository is not ready")
	// ErrRepositoryUnanswered says that nobody looked at the repository in time.
	ErrRepositoryUnanswered = errors.New("nobody has looked at the repository yet")
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

// WaitRepository makes sure that the Repository exists and waits until it is
// ready and has its ID, looking every so often. It ends with
// ErrRepositoryNotReady, the reason and the message as soon as the controller
// says that it isn't, and with ErrRepositoryUnanswered when ctx ends before the
// controller has said anything.
func (j *Jobs) WaitRepository(ctx context.Context, location, volumesOf string, every time.Duration) (*v1alpha1.Repository, error) {
	repo, err := j.EnsureRepository(ctx, location, volumesOf)
	if err != nil {
		return nil, err
	}

	tick := time.NewTicker(every)
	defer tick.Stop()

	for {
		if done, err := settled(repo); done || err != nil {
			return repo, err
		}

		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for Repository %s/%s: %w: %w", repo.Namespace, repo.Name, ErrRepositoryUnanswered, ctx.Err())
		case <-tick.C:
		}

		var next v1alpha1.Repository
		if err := j.client.Get(ctx, types.NamespacedName{Namespace: repo.Namespace, Name: repo.Name}, &next); err == nil {
			repo = &next
		}
		// An API server that doesn't answer now may answer at the next look; ctx bounds it.
	}
}

func settled(repo *v1alpha1.Repository) (bool, error) {
	switch repo.Status.Phase {
	case v1alpha1.RepositoryReady:
		return repo.Status.ID != "", nil
	case v1alpha1.RepositoryNotReady:
		return true, fmt.Errorf("backup storage location %q, volumes of namespace %q: %w: %s: %s",
			repo.Spec.BackupStorageLocation, repo.Spec.Namespace, ErrRepositoryNotReady, repo.Status.Reason, repo.Status.Message)
	default:
		return false, nil
	}
}
