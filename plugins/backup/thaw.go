package backup

import (
	"context"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// cancelBound is how long cancelled jobs may take to stop.
const cancelBound = 30 * time.Second

// thawWait waits until the jobs have ended, so that Velero's post hook thaws
// the application afterwards. Velero waits for nothing but this call between the hooks.
// What isn't done within the freeze bound is cancelled.
func (s *Session) thawWait(log logrus.FieldLogger, b *velerov1.Backup, list []*v1alpha1.VolumeBackup) {
	id := operation.ID{Kind: operation.Backup}
	for _, job := range list {
		id.Jobs = append(id.Jobs, job.Name)
	}

	log.Infof("hooks quiesce the pod: waiting up to %s for %d volumes", FreezeBound, len(list))

	last := s.waitFor(b, id, FreezeBound)
	if operation.Ended(id, last) {
		return
	}

	open := unfinished(id, last)
	log.Errorf("volumes were not moved within %s, the bound for a quiesced application, and are cancelled: %s", FreezeBound, strings.Join(open, ", "))

	if err := s.cancel(open, b.Namespace); err != nil {
		log.Warnf("cancelling: %v", err)
	}

	if last = s.waitFor(b, id, cancelBound); !operation.Ended(id, last) {
		log.Warnf("still running %s after they were cancelled: %s", cancelBound, strings.Join(unfinished(id, last), ", "))
	}
}

func (s *Session) waitFor(b *velerov1.Backup, id operation.ID, bound time.Duration) map[string]jobs.Progress {
	// The bound is kept by the session's clock; the context only bounds a call that hangs.
	ctx, cancel := context.WithTimeout(context.Background(), bound+progressBound)
	defer cancel()

	began := s.clock.Now()

	return s.poll.Wait(ctx, owner(b), func(found map[string]jobs.Progress) bool {
		return operation.Ended(id, found) || s.clock.Since(began) >= bound
	})
}

func unfinished(id operation.ID, found map[string]jobs.Progress) []string {
	var names []string

	for _, name := range id.Jobs {
		if job, ok := found[name]; !ok || !job.Phase.Terminal() {
			names = append(names, name)
		}
	}

	return names
}
