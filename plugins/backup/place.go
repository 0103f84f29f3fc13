package backup

import (
	"context"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/jobs"
)

// place returns where a BackupStorageLocation points now; empty where that can't be read. It is there to
// find a repository that was looked for in another place: without it, the controller is believed.
func (s *Session) place(ctx context.Context, namespace, location string) string {
	c, err := s.connect()
	if err != nil {
		return ""
	}

	var l velerov1.BackupStorageLocation
	if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: location}, &l); err != nil {
		return ""
	}

	place, err := jobs.Place(&l)
	if err != nil {
		return ""
	}

	return place
}
