package restore

import (
	"fmt"

	"github.com/sirupsen/logrus"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// VolumeAction keeps Velero from making the original PersistentVolume of a
// moved claim anew. Velero asks only for volumes with the reclaim policy Retain
// or Recycle; others it provisions anew by itself (velero v1.18.3 pkg/restore/restore.go).
type VolumeAction struct{ action }

// NewVolumeAction returns the action for PersistentVolumes.
func NewVolumeAction(log logrus.FieldLogger, s *Session) *VolumeAction {
	return &VolumeAction{action{session: s, log: log, name: "estiba.dev/restore-volume", resources: []string{"persistentvolumes"}}}
}

// Execute leaves the PersistentVolume out if its data was moved.
func (a *VolumeAction) Execute(in *velero.RestoreItemActionExecuteInput) (*velero.RestoreItemActionExecuteOutput, error) {
	item := stripped(in.Item)
	out := velero.NewRestoreItemActionExecuteOutput(item)

	text, ok := annotations(in.ItemFromBackup)[contract.AnnotationVolume]
	if !ok {
		return out, nil
	}

	record, err := contract.DecodeClaimRecord(text)
	if err != nil {
		return nil, fmt.Errorf("PersistentVolume %s is not restored: %w", item.GetName(), err)
	}

	if why := foreign(record.Backup, in.Restore); why != "" {
		a.log.Warnf("PersistentVolume %s: %s", item.GetName(), why)

		return out, nil
	}

	a.log.Infof("PersistentVolume %s is left out: claim %s gets a new volume, and its data from the repository", item.GetName(), record.Volume.Claim)

	return out.WithoutRestore(), nil
}

// JobAction keeps jobs that lie in a backup from being made, and so done, again.
type JobAction struct{ action }

// NewJobAction returns the action for Estiba's own kinds.
func NewJobAction(log logrus.FieldLogger, s *Session) *JobAction {
	var resources []string
	for _, r := range []string{"volumebackups", "volumerestores", "snapshotdeletions", "repositories"} {
		resources = append(resources, r+"."+v1alpha1.GroupName)
	}

	return &JobAction{action{session: s, log: log, name: "estiba.dev/restore-job", resources: resources}}
}

// Execute leaves the object out.
func (a *JobAction) Execute(in *velero.RestoreItemActionExecuteInput) (*velero.RestoreItemActionExecuteOutput, error) {
	return velero.NewRestoreItemActionExecuteOutput(in.Item).WithoutRestore(), nil
}
