package backup

import (
	"context"
	"errors"
	"time"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"

	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

func (s *Session) progress(log logrus.FieldLogger, id operation.ID, b *velerov1.Backup) velero.OperationProgress {
	ctx, cancel := context.WithTimeout(context.Background(), progressBound+operation.HoldBudget)
	defer cancel()

	found, err := s.poll.Jobs(ctx, operation.Owner(b), operation.Fresh)
	if err != nil && !errors.Is(err, jobs.ErrNotInstalled) {
		log.Infof("the progress of %s can't be read now: %v", id, err)

		return velero.OperationProgress{OperationUnits: operation.Units, Description: "the jobs can't be read now", Updated: s.clock.Now()}
	}

	// Velero asks once more when all items are backed up, and would ask again
	// up to 10 s later: small volumes are done before that.
	if all := withOthers(id, found); b.Status.Phase == velerov1.BackupPhaseInProgress && !operation.Ended(all, found) {
		if last := s.poll.Hold(ctx, operation.Owner(b), all); last != nil {
			found = last
		}
	}

	return s.standIn(log, b, id, found, s.poll.Report(operation.Observed{
		ID: id, Jobs: found, Now: s.clock.Now(), Started: operation.Started(startOf(b), id, found),
	}, func(text string) { log.Warn(text) }))
}

func startOf(b *velerov1.Backup) (start time.Time) {
	if b.Status.StartTimestamp != nil {
		start = b.Status.StartTimestamp.Time
	}

	return start
}

// cancel asks for the end of the jobs. Bound is Velero's for their operation, where that is the cause, and else 0.
func (s *Session) cancel(names []string, namespace string, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), progressBound)
	defer cancel()

	j, err := s.connect.Jobs(namespace)
	if err != nil {
		return err
	}

	var failures []error
	for _, name := range names {
		failures = append(failures, j.CancelBackup(ctx, name, bound))
	}

	return errors.Join(failures...)
}
