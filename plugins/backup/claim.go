package backup

import (
	"context"
	"errors"
	"maps"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// ClaimAction asks for the job of a claim and reports it.
type ClaimAction struct{ action }

// NewClaimAction returns the action for PersistentVolumeClaims.
func NewClaimAction(log logrus.FieldLogger, s *Session) *ClaimAction {
	return &ClaimAction{action{name: "estiba.dev/backup-claim", session: s, log: log, resource: "persistentvolumeclaims"}}
}

// Execute decides on the claim, makes sure of its job, and returns the claim
// with a record of it and the operation that reports it.
func (a *ClaimAction) Execute(item runtime.Unstructured, b *velerov1.Backup) (
	runtime.Unstructured, []velero.ResourceIdentifier, string, []velero.ResourceIdentifier, error,
) {
	// The item loses it, for a restore of it begins anew.
	unfilled := (&unstructured.Unstructured{Object: item.UnstructuredContent()}).GetLabels()[contract.LabelUnfilled]

	ctx, cancel, updated, log := a.begin("claim", item, b)
	defer cancel()

	job, report, lost := a.ask(ctx, log, updated, unfilled, b)
	if job == nil {
		if err := annotateLost(updated, b, lost); err != nil {
			unprotected(log, updated.GetName(), err)
		}

		return updated, nil, "", nil, nil
	}

	pv := a.volume(ctx, log, updated)
	if err := annotateClaim(updated, b, job, pv); err != nil {
		unprotected(log, updated.GetName(), err)
	}

	a.session.paired(log, b, pv)

	var mine []*v1alpha1.VolumeBackup
	if report {
		mine = append(mine, job)
	}

	id, items := operationFor(b, mine)

	return updated, nil, id, items, nil
}

// ask returns the claim's job, or nil where there is none to be; lost is why, if somebody asked for the volume. That
// the operation is to report it is said by mine. Unfilled is the claim's label of that name.
func (a *ClaimAction) ask(
	ctx context.Context, log logrus.FieldLogger, item *unstructured.Unstructured, unfilled string, b *velerov1.Backup,
) (job *v1alpha1.VolumeBackup, mine bool, lost string) {
	claim, err := typed[corev1.PersistentVolumeClaim](item)
	if err != nil {
		unprotected(log, item.GetName(), err)

		return nil, false, notAskedFor(err)
	}

	if unfilled != "" {
		claim.Labels = map[string]string{contract.LabelUnfilled: unfilled}
		maps.Copy(claim.Labels, item.GetLabels())
	}

	reference := claimNamed(claim.Namespace, claim.Name)

	if finalizing(b) {
		if job, err = a.session.made(ctx, b, reference); err != nil {
			unprotected(log, claim.Name, err)
		}

		return job, false, ""
	}

	p, err := a.session.planClaim(ctx, b, claim)
	if err != nil {
		promised, unseen := a.session.promise(ctx, b, reference)
		unprotected(log, claim.Name, errors.Join(err, unseen))

		return promised, false, notAskedFor(err)
	}

	a.session.say(log, b, claim, p.verdict)

	if !p.verdict.Move {
		// The record of its PersistentVolume was written before Velero took a snapshot of it.
		a.session.forget(b, reference)

		return nil, false, lostBy(p.verdict)
	}

	job, outcome, err := a.session.request(ctx, b, p, v1alpha1.RequestedByClaim)
	if err != nil {
		missed(log, p.verdict, err)

		return job, false, notAskedFor(err)
	}

	asked(log, job, string(outcome))
	a.session.foresee(b, job)

	return job, job.Spec.RequestedBy == v1alpha1.RequestedByClaim, ""
}

// volume returns the PersistentVolume that the claim is bound to. The data is worth more than its labels: where it
// can't be read, that is said, and nothing else.
func (a *ClaimAction) volume(ctx context.Context, log logrus.FieldLogger, item *unstructured.Unstructured) *corev1.PersistentVolume {
	name, _, _ := unstructured.NestedString(item.Object, "spec", "volumeName")
	if name == "" {
		return nil
	}

	pv, err := a.session.persistentVolume(ctx, name)
	if err != nil {
		log.Warnf("a restore won't put back the labels and the reclaim policy of PersistentVolume %s, for it can't be read: %v", name, err)

		return nil
	}

	return pv
}
