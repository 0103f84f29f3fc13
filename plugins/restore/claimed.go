package restore

import (
	"context"
	"errors"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// claimed returns the jobs that fill claims of the pod which its record doesn't name, by volume. Velero restores
// claims before pods, so that they are there by now. A pod may lack in its record what its claim has in its own: the
// process that took the backup died in between, or the pod came into the backup otherwise.
func (s *Session) claimed(item *unstructured.Unstructured, record contract.PodRecord, r *velerov1.Restore) (map[string]string, error) {
	pod, err := podOf(item)
	if err != nil || !withData(r) {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	byVolume := map[string]string{}

	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]

		claim := v1alpha1.ClaimName(pod, volume)
		if _, recorded := record.Volumes[volume.Name]; recorded || claim == "" {
			continue
		}

		j, err := s.connect.Jobs(r.Namespace)
		if err != nil {
			return nil, err
		}

		name := jobs.RestoreJobName(r.UID, v1alpha1.VolumeReference{
			Namespace: mapped(pod.Namespace, r), Claim: &v1alpha1.ClaimReference{Name: claim},
		})

		switch _, err := j.Restore(ctx, name); {
		case err == nil:
			byVolume[volume.Name] = name
		case !apierrors.IsNotFound(err) && !errors.Is(err, jobs.ErrNotInstalled):
			return nil, err
		}
	}

	return byVolume, nil
}
