package restore

import (
	"github.com/sirupsen/logrus"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// lost says that a claim comes back without its data, if it was to be in the backup; see warnings.
func lost(log logrus.FieldLogger, item *unstructured.Unstructured, in *velero.RestoreItemActionExecuteInput) []velero.ResourceIdentifier {
	text, ok := annotations(in.ItemFromBackup)[contract.AnnotationVolumeUnprotected]
	if !ok || !withData(in.Restore) {
		return nil
	}

	record, err := contract.DecodeUnprotectedRecord(text)
	if err != nil {
		// That there is one says enough.
		record.Reason = err.Error()
	} else if why := foreign(record.Backup, in.Restore); why != "" {
		log.Warnf("claim %s: %s", item.GetName(), why)

		return nil
	}

	log.Warnf("claim %s/%s comes back without its data, for that is not in backup %s although it was to be: %s",
		item.GetNamespace(), item.GetName(), in.Restore.Spec.BackupName, record.Reason)

	return []velero.ResourceIdentifier{notInBackup(item, "claim-"+item.GetName())}
}

// notInBackup names what the backup doesn't hold of the item, for Velero to warn of.
func notInBackup(item *unstructured.Unstructured, name string) velero.ResourceIdentifier {
	return velero.ResourceIdentifier{
		GroupResource: schema.GroupResource{Group: v1alpha1.GroupName, Resource: "volume-data-not-in-backup"},
		Namespace:     item.GetNamespace(), Name: name,
	}
}
