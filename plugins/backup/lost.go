package backup

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// standIn has an operation whose jobs have ended stand in for operations that Velero has lost. It keeps the list of
// them without a lock, so that one is lost now and then where it backs up several items at a time
// (velero v1.18.3 pkg/backup/item_backupper.go), and would end the backup without those. Its count of them,
// which comes with its second question, tells.
func (s *Session) standIn(log logrus.FieldLogger, b *velerov1.Backup, id operation.ID, found map[string]jobs.Progress, p velero.OperationProgress) velero.OperationProgress {
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(found)), func(name string) bool { return slices.Contains(id.Jobs, name) })

	switch {
	case !p.Completed:
		return p
	case b.Status.Phase == velerov1.BackupPhaseInProgress:
		// Velero hasn't counted yet. The backup goes on with what is known only if nothing can be missing; an
		// operation that failed tells of itself while the backup's log can still be written to.
		if p.Err == "" && slices.ContainsFunc(others, func(name string) bool { return found[name].Phase != v1alpha1.PhaseCompleted }) {
			return unended(p, "waits for the backup's other volumes")
		}

		return p
	}

	lost := lostOperations(b, found)
	if lost == 0 {
		return p
	}

	cause := fmt.Sprintf("Velero has lost %d operations of this backup, as it may with --item-block-worker-count above 1", lost)
	if s.first(string(b.UID) + "/lost") {
		log.Warnf("%s; the others stand in for them", cause)
	}

	if slices.ContainsFunc(others, func(name string) bool { return !found[name].Phase.Terminal() }) {
		return unended(p, cause+": waits for the backup's other volumes")
	}

	// All operations end within one look of Velero's, and so in one process: it is said once.
	if failed := failures(others, found); len(failed) > 0 && s.first(string(b.UID)+"/missing") {
		p.Err = strings.Trim(p.Err+"; "+cause+", perhaps those of: "+strings.Join(failed, "; "), "; ")
	}

	return p
}

// lostOperations returns how many operations Velero has fewer than items asked for jobs; 0 where it has not counted them.
// Those of other plugins count as ours, so that it may be more.
func lostOperations(b *velerov1.Backup, found map[string]jobs.Progress) int {
	switch b.Status.Phase {
	case velerov1.BackupPhaseWaitingForPluginOperations, velerov1.BackupPhaseWaitingForPluginOperationsPartiallyFailed:
	default:
		return 0
	}

	items := map[string]bool{}

	for _, job := range found {
		if job.Item != "" {
			items[job.Item] = true
		}
	}

	return max(0, len(items)-b.Status.BackupItemOperationsAttempted)
}

// withOthers returns the operation with all jobs of its backup.
func withOthers(id operation.ID, found map[string]jobs.Progress) operation.ID {
	all := slices.AppendSeq(slices.Clone(id.Jobs), maps.Keys(found))
	slices.Sort(all)

	return operation.ID{Kind: id.Kind, Jobs: slices.Compact(all)}
}

func unended(p velero.OperationProgress, why string) velero.OperationProgress {
	p.Completed, p.Err = false, ""
	p.Description += "; " + why

	return p
}

func failures(names []string, found map[string]jobs.Progress) (failed []string) {
	for _, name := range names {
		if job := found[name]; job.Phase != v1alpha1.PhaseCompleted {
			failed = append(failed, fmt.Sprintf("volume %s: VolumeBackup %s is %s: %s: %s", job.Volume, name, job.Phase, job.Reason, job.Message))
		}
	}

	return failed
}
