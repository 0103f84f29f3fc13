package restore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// boundTo are the annotations and fields by which a claim is bound to its
// original volume, or says how that was made.
func boundTo() (keys []string, fields []string) {
	keys = []string{
		"pv.kubernetes.io/bind-completed",
		"pv.kubernetes.io/bound-by-controller",
		"volume.kubernetes.io/selected-node",
		"volume.kubernetes.io/storage-provisioner",
		"volume.beta.kubernetes.io/storage-provisioner",
	}
	fields = []string{
		"volumeName",
		// The data comes from the repository; what the original was made from may be gone.
		"dataSource",
		"dataSourceRef",
	}

	return keys, fields
}

// ClaimAction lets a moved claim get a new volume, and asks for the job that
// fills it. The actions of the pods that mount the claim find the same job; where
// no pod of the restore does, the job says so by its failure.
type ClaimAction struct{ action }

// NewClaimAction returns the action for PersistentVolumeClaims.
func NewClaimAction(log logrus.FieldLogger, s *Session) *ClaimAction {
	return &ClaimAction{action{session: s, log: log, name: "estiba.dev/restore-claim", resources: []string{"persistentvolumeclaims"}}}
}

// Execute frees the claim from its original volume if its data was moved. It
// returns an error, and Velero doesn't restore the claim, where the data is known
// to exist and can't be asked for.
func (a *ClaimAction) Execute(in *velero.RestoreItemActionExecuteInput) (*velero.RestoreItemActionExecuteOutput, error) {
	item := stripped(in.Item)
	log := a.log.WithField("claim", item.GetNamespace()+"/"+item.GetName())

	out, err := a.execute(log, item, in)
	if err != nil || out.SkipRestore {
		return out, err
	}

	return out, a.session.mark(item, in.Restore, out.OperationID)
}

func (a *ClaimAction) execute(
	log logrus.FieldLogger, item *unstructured.Unstructured, in *velero.RestoreItemActionExecuteInput,
) (*velero.RestoreItemActionExecuteOutput, error) {
	out := velero.NewRestoreItemActionExecuteOutput(item)

	text, ok := annotations(in.ItemFromBackup)[contract.AnnotationVolume]
	if !ok {
		out.AdditionalItems = lost(log, item, in)

		return out, nil
	}

	if ofPod(in.ItemFromBackup) {
		log.Infof("claim %s is left out: it is a generic ephemeral volume, and Kubernetes makes the claim anew for the restored pod, whose action asks for the data", item.GetName())

		return out.WithoutRestore(), nil
	}

	record, err := contract.DecodeClaimRecord(text)
	if err != nil && withData(in.Restore) {
		return nil, fmt.Errorf("claim %s/%s is not restored: %w", item.GetNamespace(), item.GetName(), err)
	}

	if why := foreign(record.Backup, in.Restore); err == nil && why != "" {
		log.Warnf("claim %s: %s", item.GetName(), why)

		return out, nil
	}

	free(item)

	if !withData(in.Restore) {
		log.Infof("claim %s gets a new and empty volume: the restore doesn't bring volumes (spec.restorePVs is false)", item.GetName())

		return out, nil
	}

	for _, check := range []error{a.session.unbound(in.ItemFromBackup, in.Restore), a.session.startsNothing(item, in.Restore)} {
		if check != nil {
			return nil, fmt.Errorf("claim %s/%s is not restored: %w", item.GetNamespace(), item.GetName(), check)
		}
	}

	id, err := a.filled(log, item, in, record)
	if err != nil {
		return nil, fmt.Errorf("claim %s/%s is not restored, for it would come back empty: %w; mend that, and restore again", item.GetNamespace(), item.GetName(), err)
	}

	out.WaitForAdditionalItems = a.session.wants(in.Restore)

	return out.WithOperationID(id.String()), nil
}

// filled makes sure of the job that fills the claim, through whichever pods mount it.
func (a *ClaimAction) filled(
	log logrus.FieldLogger, item *unstructured.Unstructured, in *velero.RestoreItemActionExecuteInput, record contract.ClaimRecord,
) (operation.ID, error) {
	r := in.Restore

	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	location, err := a.session.location(ctx, log, r)
	if err != nil {
		return operation.ID{}, err
	}

	a.session.sized(ctx, log, item, in.ItemFromBackup, r)

	byVolume, err := a.session.ensure(ctx, log, r, []target{{volume: record.Volume, original: record.PersistentVolume, backup: record.Backup, where: v1alpha1.VolumeReference{
		Kind:      v1alpha1.VolumePersistentVolumeClaim,
		Namespace: mapped(item.GetNamespace(), r),
		Claim:     &v1alpha1.ClaimReference{Name: item.GetName()},
	}}}, location)
	if err != nil {
		return operation.ID{}, err
	}

	return operation.ID{Kind: operation.Restore, Jobs: slices.Collect(maps.Values(byVolume))}, nil
}

// ofPod reports whether a pod owns the claim. One that Velero made would bear no
// owner, for that has another UID now, and the pod would never start.
func ofPod(item runtime.Unstructured) bool {
	o := metav1.GetControllerOf(&unstructured.Unstructured{Object: item.UnstructuredContent()})

	return o != nil && o.Kind == "Pod"
}

func free(item *unstructured.Unstructured) {
	keys, fields := boundTo()

	if a := item.GetAnnotations(); a != nil {
		for _, k := range keys {
			delete(a, k)
		}

		item.SetAnnotations(a)
	}

	for _, f := range fields {
		unstructured.RemoveNestedField(item.Object, "spec", f)
	}
}
