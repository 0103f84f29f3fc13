package restore

import (
	"fmt"
	"slices"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/estiba-dev/estiba/mover/contract"
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

// ClaimAction lets a moved claim get a new volume.
type ClaimAction struct{ action }

// NewClaimAction gives the action for PersistentVolumeClaims.
func NewClaimAction(log logrus.FieldLogger, s *Session) *ClaimAction {
	return &ClaimAction{action{session: s, log: log, name: "estiba.dev/restore-claim", resources: []string{"persistentvolumeclaims"}}}
}

// Execute frees the claim from its original volume if its data was moved.
func (a *ClaimAction) Execute(in *velero.RestoreItemActionExecuteInput) (*velero.RestoreItemActionExecuteOutput, error) {
	item := stripped(in.Item)
	out := velero.NewRestoreItemActionExecuteOutput(item)
	log := a.log.WithField("claim", item.GetNamespace()+"/"+item.GetName())

	text, ok := annotations(in.ItemFromBackup)[contract.AnnotationVolume]
	if !ok {
		return out, nil
	}

	record, err := contract.DecodeClaimRecord(text)
	if err != nil {
		return nil, fmt.Errorf("claim %s/%s is not restored: %w", item.GetNamespace(), item.GetName(), err)
	}

	if why := foreign(record.Backup, in.Restore); why != "" {
		log.Warnf("claim %s: %s", item.GetName(), why)

		return out, nil
	}

	free(item)

	if withData(in.Restore) && !bringsPods(in.Restore) {
		log.Warnf("claim %s gets a new and empty volume: its data is restored with a pod that mounts it, and this restore leaves pods out", item.GetName())
	}

	return out, nil
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

// bringsPods tells whether the restore's filters let pods through.
func bringsPods(r *velerov1.Restore) bool {
	names := func(list []string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return s == "*" || s == "pods" || s == "pod" || s == "po" })
	}

	return !names(r.Spec.ExcludedResources) && (len(r.Spec.IncludedResources) == 0 || names(r.Spec.IncludedResources))
}
