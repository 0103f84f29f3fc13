package jobs

import (
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"

	"github.com/estiba-dev/estiba/mover/contract"
)

// Place returns where a BackupStorageLocation points; see contract.Place.
func Place(l *velerov1.BackupStorageLocation) (string, error) {
	var bucket, prefix string
	if o := l.Spec.ObjectStorage; o != nil {
		bucket, prefix = o.Bucket, o.Prefix
	}

	place, err := contract.Place(l.Spec.Provider, bucket, prefix, l.Spec.Config)
	if err != nil {
		return "", fmt.Errorf("BackupStorageLocation %s: %w", l.Name, err)
	}

	return place, nil
}
