package jobs

import (
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// sameBackup compares what is moved and where to. Through which pod a claim is
// read, which item reports the job and the options are left out: the claim's
// action and the actions of the pods that mount it may differ in them.
func sameBackup(have, want *v1alpha1.VolumeBackup) error {
	return errors.Join(
		differ(have.Name, "backup", have.Spec.Backup, want.Spec.Backup),
		differ(have.Name, "repository", have.Spec.Repository, want.Spec.Repository),
		differ(have.Name, "volume", moved(have.Spec.Volume), moved(want.Spec.Volume)),
		differ(have.Name, "source", have.Spec.Source, want.Spec.Source),
	)
}

// sameRestore compares what is written and where to. The pod of a claim is left
// out: pods that share a claim share the job.
func sameRestore(have, want *v1alpha1.VolumeRestore) error {
	return errors.Join(
		differ(have.Name, "restore", have.Spec.Restore, want.Spec.Restore),
		differ(have.Name, "repository", have.Spec.Repository, want.Spec.Repository),
		differ(have.Name, "snapshot", have.Spec.Snapshot, want.Spec.Snapshot),
		differ(have.Name, "target", moved(have.Spec.Target), moved(want.Spec.Target)),
	)
}

func moved(v v1alpha1.VolumeReference) v1alpha1.VolumeReference {
	if v.Claim != nil {
		v.Pod = v1alpha1.PodReference{}
		v.Name = ""
	}

	return v
}

func differ(name, field string, have, want any) error {
	if equality.Semantic.DeepEqual(have, want) {
		return nil
	}

	return fmt.Errorf("%w: %s has %s %s, and %s is wanted", ErrConflict, name, field, show(have), show(want))
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%+v", v)
	}

	return string(b)
}
