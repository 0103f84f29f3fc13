package backup

import (
	"context"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

const (
	// cancelBound is how long cancelled jobs may take to stop.
	cancelBound = 30 * time.Second
	// A frozen application is thawed at once when a small volume is done; what
	// takes longer is looked at less often.
	briskFor = 5 * time.Second
	calmPace = 2 * time.Second
)

// thawWait waits until the jobs have ended, so that Velero's post hook runs
// afterwards: Velero waits for nothing but this call between the hooks. Of an
// application that is frozen, what isn't done within the bound is cancelled, for
// it would be read while the application writes. Where a hook only clears up
// afterwards, the jobs go on. The bound is one for all pods whose hooks Velero runs together.
func (s *Session) thawWait(log logrus.FieldLogger, b *velerov1.Backup, pod types.UID, list []*v1alpha1.VolumeBackup, frozen bool) {
	id := operation.ID{Kind: operation.Backup}
	for _, job := range list {
		id.Jobs = append(id.Jobs, job.Name)
	}

	bound, err := freezeBound(b)
	if err != nil {
		log.Warn(err)
	}

	left := s.left(b, pod)
	log.Infof("a post hook follows: waiting up to %s for %d volumes (annotation %s of the Backup)", left, len(list), contract.AnnotationFreezeTimeout)

	last := s.waitFor(b.Namespace, id, left)
	if operation.Ended(id, last) {
		return
	}

	open := unfinished(id, last)

	if !frozen {
		log.Warnf("the post hook runs before these volumes are moved, for they were not done within %s; they go on (annotation %s of the Backup gives them more time): %s",
			bound, contract.AnnotationFreezeTimeout, strings.Join(open, ", "))

		return
	}

	log.Errorf("volumes were not moved within %s, the bound for a quiesced application, and are cancelled (annotation %s of the Backup raises it): %s",
		bound, contract.AnnotationFreezeTimeout, strings.Join(open, ", "))

	if err := s.cancel(open, b.Namespace, 0); err != nil {
		log.Warnf("cancelling: %v", err)
	}

	if last = s.waitFor(b.Namespace, id, cancelBound); !operation.Ended(id, last) {
		log.Warnf("still running %s after they were cancelled: %s", cancelBound, strings.Join(unfinished(id, last), ", "))
	}
}

// waitFor looks at the operation's jobs, and at no others, until they have ended or the bound is reached.
func (s *Session) waitFor(namespace string, id operation.ID, bound time.Duration) map[string]jobs.Progress {
	found := make(map[string]jobs.Progress, len(id.Jobs))

	for began := s.clock.Now(); ; {
		s.look(namespace, unfinished(id, found), found)

		gone := s.clock.Since(began)
		if gone >= bound || operation.Ended(id, found) {
			return found
		}

		pace := operation.Pace
		if gone >= briskFor {
			pace = calmPace
		}

		<-s.clock.After(min(pace, bound-gone))
	}
}

// look reads the jobs into found. An API server that doesn't answer is asked
// again by the next look; a job that is gone is never going to end otherwise.
func (s *Session) look(namespace string, names []string, found map[string]jobs.Progress) {
	ctx, cancel := context.WithTimeout(context.Background(), progressBound)
	defer cancel()

	j, err := s.connect.Jobs(namespace)
	if err != nil {
		return
	}

	for _, name := range names {
		switch job, err := j.Backup(ctx, name); {
		case err == nil:
			found[name] = jobs.BackupProgress(job)
		case apierrors.IsNotFound(err):
			found[name] = jobs.Progress{Job: name, Phase: v1alpha1.PhaseFailed, Reason: "JobMissing"}
		}
	}
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
