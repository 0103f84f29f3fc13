package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// action is what the actions have in common: they report operations, and apply to some resources.
type action struct {
	session   *Session
	log       logrus.FieldLogger
	name      string
	resources []string
}

// Name is the name that the action is registered under.
func (a *action) Name() string { return a.name }

// AppliesTo says which items the action is for.
func (a *action) AppliesTo() (velero.ResourceSelector, error) {
	return velero.ResourceSelector{IncludedResources: a.resources}, nil
}

// AreAdditionalItemsReady is asked right after there was something wrong, and says what.
// There are no items to wait for; but an error here is the only one that Velero
// records of an item that it restores all the same (velero v1.18.3
// pkg/restore/restore.go), so that `velero restore describe` shows it.
func (a *action) AreAdditionalItemsReady(_ []velero.ResourceIdentifier, r *velerov1.Restore) (bool, error) {
	return true, a.session.take(r)
}

// Progress returns how far the jobs of an operation are. An error would end the
// operation for good, so there is one only for an ID that isn't ours.
func (a *action) Progress(operationID string, r *velerov1.Restore) (velero.OperationProgress, error) {
	id, err := operation.Parse(operationID)
	if err != nil {
		return velero.OperationProgress{}, err
	}

	return a.session.progress(a.log, id, r), nil
}

// Cancel asks for all jobs of an operation to be stopped. Velero doesn't wait for it.
func (a *action) Cancel(operationID string, r *velerov1.Restore) error {
	id, err := operation.Parse(operationID)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), progressBound)
	defer cancel()

	return a.session.cancel(ctx, id.Jobs, r.Namespace, r.Spec.ItemOperationTimeout.Duration)
}

func (s *Session) progress(log logrus.FieldLogger, id operation.ID, r *velerov1.Restore) velero.OperationProgress {
	ctx, cancel := context.WithTimeout(context.Background(), progressBound+operation.HoldBudget)
	defer cancel()

	found, err := s.poll.Jobs(ctx, operation.Owner(r), operation.Fresh)
	if err != nil && !errors.Is(err, jobs.ErrNotInstalled) {
		log.Infof("the progress of %s can't be read now: %v", id, err)

		return velero.OperationProgress{OperationUnits: operation.Units, Description: "the jobs can't be read now", Updated: s.clock.Now()}
	}

	// Velero asks once more when all items are restored, and would ask again up
	// to 10 s later: small volumes are done before that.
	if r.Status.Phase == velerov1.RestorePhaseInProgress && !operation.Ended(id, found) {
		if last := s.poll.Hold(ctx, operation.Owner(r), id); last != nil {
			found = last
		}
	}

	var start time.Time
	if r.Status.StartTimestamp != nil {
		start = r.Status.StartTimestamp.Time
	}

	return s.poll.Report(operation.Observed{
		ID: id, Jobs: found, Now: s.clock.Now(), Started: operation.Started(start, id, found),
	}, func(text string) { log.Warn(text) })
}

// stripped returns the item without anything that an earlier backup or restore has left on it.
func stripped(item runtime.Unstructured) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: item.UnstructuredContent()}
	contract.Strip(u.Object)

	return u
}

func annotations(item runtime.Unstructured) map[string]string {
	u := unstructured.Unstructured{Object: item.UnstructuredContent()}

	return u.GetAnnotations()
}

// foreign says why a record doesn't count for the restore; empty where it does.
// A workload may have been backed up with a record that was left on it.
func foreign(record contract.Owner, r *velerov1.Restore) string {
	if record.Name == r.Spec.BackupName {
		return ""
	}

	return fmt.Sprintf("its record belongs to the backup %q, not to %q, and is ignored", record.Name, r.Spec.BackupName)
}

// withData reports whether the restore is to bring the volumes' data.
func withData(r *velerov1.Restore) bool {
	return r.Spec.RestorePVs == nil || *r.Spec.RestorePVs
}
