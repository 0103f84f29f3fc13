package repository

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot/snapshotmaintenance"

	"github.com/estiba-dev/estiba/mover/engine"
)

// MaintenanceOwner returns who maintains the repository, as USER@HOST; empty if nobody does.
func (r *Repository) MaintenanceOwner(ctx context.Context) (string, error) {
	p, err := maintenance.GetParams(ctx, r)
	if err != nil {
		return "", fmt.Errorf("read maintenance parameters: %w", err)
	}

	return p.Owner, nil
}

// OwnMaintenance makes the user and host that the repository was opened with the
// ones who maintain it. Whether it is right to take it from somebody else is for
// the caller to know.
func (r *Repository) OwnMaintenance(ctx context.Context) error {
	err := repo.WriteSession(ctx, r, repo.WriteSessionOptions{Purpose: "own maintenance"},
		func(ctx context.Context, w repo.RepositoryWriter) error {
			p, err := maintenance.GetParams(ctx, w)
			if err != nil {
				return err
			}

			p.Owner = r.ClientOptions().UsernameAtHost()

			return maintenance.SetParams(ctx, w, p)
		})
	if err != nil {
		return fmt.Errorf("own maintenance: %w", err)
	}

	return nil
}

// ErrNotOwner is returned by Maintain where somebody else maintains the repository.
var ErrNotOwner = errors.New("somebody else maintains the repository")

// Maintain runs what is due by kopia's schedule: the quick cycle hourly, the full
// one daily, with the margins that make it safe beside running backups
// (maintenance.SafetyFull). It is for one process at a time in the whole world;
// kopia's own lock holds on one machine only.
//
// Errors: ErrNotOwner, and whatever Explain makes of the rest.
func (r *Repository) Maintain(ctx context.Context) error {
	err := repo.DirectWriteSession(ctx, r, repo.WriteSessionOptions{Purpose: "maintenance"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			return snapshotmaintenance.Run(ctx, w, maintenance.ModeAuto, false, maintenance.SafetyFull)
		})

	err = errors.Join(err, removeIfThere(r.ConfigFilename()+".mlock"))

	var other maintenance.NotOwnedError

	switch {
	case errors.As(err, &other):
		return fmt.Errorf("maintain repository: %w: %s", ErrNotOwner, other.Owner)
	case err != nil:
		return engine.Errorf(codeOf(err, engine.CodeInternal), "maintain repository: %w", err)
	}

	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove lock: %w", err)
	}

	return nil
}
