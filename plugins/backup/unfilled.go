package backup

import (
	"context"
	"errors"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// unfilled returns why the claim doesn't hold what a restore was to bring; an empty string where it does.
func (s *Session) unfilled(ctx context.Context, b *velerov1.Backup, claim *corev1.PersistentVolumeClaim) (string, error) {
	restores, err := s.restoresIn(ctx, b.Namespace)
	if err != nil {
		return "", fmt.Errorf("look whether a restore is still to fill claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}

	return jobs.Unfilled(claim, restores), nil
}

// restoresIn lists the VolumeRestores, of which there are none where the kinds aren't installed.
func (s *Session) restoresIn(ctx context.Context, namespace string) ([]v1alpha1.VolumeRestore, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.restores.value != nil && s.clock.Since(s.restores.at) < memory {
		return s.restores.value, nil
	}

	j, err := s.connect.Jobs(namespace)
	if err != nil {
		return nil, err
	}

	list, err := j.Restores(ctx)
	if err != nil && !errors.Is(err, jobs.ErrNotInstalled) {
		return nil, err
	}

	s.restores = remembered[[]v1alpha1.VolumeRestore]{at: s.clock.Now(), value: append([]v1alpha1.VolumeRestore{}, list...)}

	return s.restores.value, nil
}
