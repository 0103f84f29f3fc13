package backup

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// VolumeAction marks the PersistentVolumes whose claims are moved, so that a
// restore doesn't bind the claim to the original volume. It asks for no job:
// the claim's own action does, right after it.
type VolumeAction struct{ action }

// NewVolumeAction returns the action for PersistentVolumes.
func NewVolumeAction(log logrus.FieldLogger, s *Session) *VolumeAction {
	return &VolumeAction{action{name: "estiba.dev/backup-volume", session: s, log: log, resource: "persistentvolumes"}}
}

// Execute returns the PersistentVolume with a record of its claim's job, if there is one to be.
func (a *VolumeAction) Execute(item runtime.Unstructured, b *velerov1.Backup) (
	runtime.Unstructured, []velero.ResourceIdentifier, string, []velero.ResourceIdentifier, error,
) {
	ctx, cancel, updated, log := a.begin("persistentvolume", item, b)
	defer cancel()

	pv, err := typed[corev1.PersistentVolume](updated)
	if err == nil {
		err = a.record(ctx, updated, pv, b)
	}

	if err != nil {
		// The claim's action meets the same and says it aloud, or says that it didn't.
		log.Infof("PersistentVolume %s gets no record: %v", updated.GetName(), err)
		a.session.bare.note(b, updated.GetName(), err.Error())
	}

	return updated, nil, "", nil, nil
}

func (a *VolumeAction) record(ctx context.Context, item *unstructured.Unstructured, pv *corev1.PersistentVolume, b *velerov1.Backup) error {
	job, err := a.foresee(ctx, pv, b)
	if err != nil || job == nil {
		return err
	}

	return annotateClaim(item, b, job, pv)
}

// foresee returns the job that the claim's action is going to ask for, or nil where there is none to be.
func (a *VolumeAction) foresee(ctx context.Context, pv *corev1.PersistentVolume, b *velerov1.Backup) (*v1alpha1.VolumeBackup, error) {
	ref := pv.Spec.ClaimRef
	if ref == nil {
		return nil, nil
	}

	if finalizing(b) {
		return a.session.made(ctx, b, claimNamed(ref.Namespace, ref.Name))
	}

	if pv.Status.Phase != corev1.VolumeBound || !admitsNamespace(b, ref.Namespace) {
		return nil, nil
	}

	var claim corev1.PersistentVolumeClaim
	if err := a.session.get(ctx, ref.Namespace, ref.Name, &claim); err != nil {
		return nil, fmt.Errorf("read its claim %s/%s: %w", ref.Namespace, ref.Name, err)
	}

	if ref.UID != claim.UID || claim.Spec.VolumeName != pv.Name {
		return nil, nil
	}

	pods, err := a.session.podsIn(ctx, claim.Namespace)
	if err != nil || !admitsClaim(b, &claim, pods) {
		return nil, err
	}

	p, err := a.session.planClaim(ctx, b, &claim)
	if err != nil || !p.verdict.Move {
		return nil, err
	}

	repo, err := a.session.ready(ctx, b, p.volume.Namespace, p.node)
	if err != nil {
		return nil, err
	}

	job := p.job(b, repo, v1alpha1.RequestedByClaim)
	a.session.foresee(b, job)

	return job, nil
}
