package restore

import (
	"context"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/plugins/settings"
)

// asked is what was asked for all volumes of a restore.
type asked struct {
	location string
	settings settings.Settings
	// begun is when the backup was; nil if it doesn't say.
	begun *metav1.Time
}

// asked returns what is asked for all volumes of the restore.
func (s *Session) asked(ctx context.Context, log logrus.FieldLogger, r *velerov1.Restore, location string) (asked, error) {
	set, err := s.settings(ctx, log, r)
	if err != nil {
		return asked{}, err
	}

	return asked{location: location, settings: set, begun: s.begun(r)}, nil
}

// begun returns when the restore's backup was begun, as far as location has found out.
func (s *Session) begun(r *velerov1.Restore) *metav1.Time {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.known[r.UID].begun
}

// add says in a job's spec what is to become of data that is there, and what to do without a snapshot.
func (a asked) add(spec *v1alpha1.VolumeRestoreSpec, source string) {
	spec.ExistingData = a.settings.ExistingData
	spec.OnFileError = a.settings.OnFileError
	spec.OnMissingSnapshot = a.settings.OnMissingSnapshot

	if spec.OnMissingSnapshot != v1alpha1.MissingPrevious {
		return
	}

	if a.begun == nil || source == "" {
		// Which snapshots are older, and of the same volume, isn't known.
		spec.OnMissingSnapshot = v1alpha1.MissingFail

		return
	}

	spec.Previous = &v1alpha1.PreviousSnapshot{Source: source, Before: *a.begun}
}
