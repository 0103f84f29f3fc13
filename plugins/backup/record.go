package backup

import (
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// recordOf says in the tarball where the data of the job's volume will be.
func recordOf(job *v1alpha1.VolumeBackup) (contract.Volume, error) {
	repo := job.Spec.Repository

	path, err := contract.RepositoryPath(repo.Namespace, repo.ID)
	if err != nil {
		return contract.Volume{}, fmt.Errorf("record of %s: %w", job.Name, err)
	}

	v := contract.Volume{
		Job:        job.Name,
		Kind:       string(job.Spec.Volume.Kind),
		Source:     job.Spec.Source.Path,
		Repository: contract.Repository{Namespace: repo.Namespace, ID: repo.ID, Path: path},
	}

	if c := job.Spec.Volume.Claim; c != nil {
		v.Claim = c.Name
	}

	return v, nil
}

func recordOwner(b *velerov1.Backup) contract.Owner {
	return contract.Owner{Name: b.Name, UID: string(b.UID)}
}

// recordOfVolume says how a claim's volume is; nil where there is none.
func recordOfVolume(pv *corev1.PersistentVolume) *contract.PersistentVolume {
	if pv == nil {
		return nil
	}

	return &contract.PersistentVolume{ReclaimPolicy: string(pv.Spec.PersistentVolumeReclaimPolicy), Labels: pv.Labels}
}

func annotateClaim(item *unstructured.Unstructured, b *velerov1.Backup, job *v1alpha1.VolumeBackup, pv *corev1.PersistentVolume) error {
	v, err := recordOf(job)
	if err != nil {
		return err
	}

	text, err := contract.ClaimRecord{Backup: recordOwner(b), Volume: v, PersistentVolume: recordOfVolume(pv)}.Encode()
	if err != nil {
		return err
	}

	contract.Annotate(item.Object, contract.AnnotationVolume, text)

	return nil
}

// annotateLost says on a claim that its data was to be in the backup, and isn't. Empty says nothing.
func annotateLost(item *unstructured.Unstructured, b *velerov1.Backup, lost string) error {
	if lost == "" {
		return nil
	}

	text, err := contract.UnprotectedRecord{Backup: recordOwner(b), Reason: lost}.Encode()
	if err != nil {
		return err
	}

	contract.Annotate(item.Object, contract.AnnotationVolumeUnprotected, text)

	return nil
}

func annotatePod(item *unstructured.Unstructured, b *velerov1.Backup, volumes map[string]contract.Volume, lost map[string]string) error {
	if len(volumes)+len(lost) == 0 {
		return nil
	}

	text, err := contract.PodRecord{Backup: recordOwner(b), Volumes: volumes, Unprotected: lost}.Encode()
	if err != nil {
		return err
	}

	contract.Annotate(item.Object, contract.AnnotationVolumes, text)

	return nil
}
