package restore

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
)

// asked is what was asked for all volumes of a restore.
type asked struct {
	location string
	settings settings.Settings
	// begun is when the backup was; nil if it doesn't say.
	begun *metav1.Time
}

// asked gives what administrators have set for restores, as the Restore's
// annotations change it. For a value that can't be read the careful default stands in.
func (s *Session) asked(ctx context.Context, log logrus.FieldLogger, r *velerov1.Restore, location string) (asked, error) {
	c, err := s.connect()
	if err != nil {
		return asked{}, err
	}

	var list corev1.ConfigMapList
	if err := c.List(ctx, &list, client.InNamespace(r.Namespace), client.HasLabels{contract.LabelPluginConfig}); err != nil {
		return asked{}, fmt.Errorf("look for the plugins' settings, a ConfigMap in namespace %s: %w", r.Namespace, err)
	}

	set, problems := settings.Read(list.Items)
	set, more := set.ForRestore(r.Name, r.Annotations)

	for _, p := range append(problems.Errors, more.Errors...) {
		log.Error(p)
	}

	return asked{location: location, settings: set, begun: s.begun(r)}, nil
}

// begun gives when the restore's backup was begun, as far as location has found out.
func (s *Session) begun(r *velerov1.Restore) *metav1.Time {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.known[r.UID].begun
}

// add says in a job's spec what is to become of data that is there, and what to do without a snapshot.
func (a asked) add(spec *v1alpha1.VolumeRestoreSpec, source string) {
	spec.ExistingData = v1alpha1.ExistingData(a.settings.ExistingData)
	spec.OnMissingSnapshot = v1alpha1.OnMissingSnapshot(a.settings.OnMissingSnapshot)

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
