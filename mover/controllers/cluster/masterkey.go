package cluster

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/state"
)

// firstKey makes the master key, but never where one was lost: a bucket that
// holds the fingerprint of some key needs that very key.
func (r *Repositories) firstKey(ctx context.Context, v view) (outcome, error) {
	const remedy = "there is no Secret %s with a master key, but BackupStorageLocation %s holds repositories made with the key of fingerprint %s; " +
		"put the exported Secret back (kubectl apply -f FILE)"

	if v.survey.keyed {
		return notReady(state.ReasonMasterKeyMissing, remedy, contract.MasterKeySecret, v.location.Name, v.survey.foreign), nil
	}

	if v.readOnly() {
		return readOnlyOutcome(v), nil
	}

	other, foreign, err := r.otherKeyed(ctx, v.location.Name)
	if err != nil {
		return outcome{}, err
	}

	if other != "" {
		return notReady(state.ReasonMasterKeyMissing, remedy, contract.MasterKeySecret, other, foreign), nil
	}

	if err := r.Keys.Create(ctx); err != nil {
		return outcome{}, fmt.Errorf("make the master key: %w", err)
	}

	r.event(v.repo, false, "MasterKeyCreated", fmt.Sprintf(
		"made the master key in Secret %s; export it and keep it apart from the cluster: without it no backup can be read", contract.MasterKeySecret))

	return outcome{phase: v.busyPhase(), reason: state.ReasonRepositoryCreating, text: "made the master key", after: r.Bounds.Soon}, nil
}

// otherKeyed returns a location, other than the named one, that holds key files. One that can't be
// looked at doesn't count: an install whose second location is away must be able to begin.
func (r *Repositories) otherKeyed(ctx context.Context, but string) (location, fingerprint string, err error) {
	var list velerov1.BackupStorageLocationList
	if err := r.listHere(ctx, &list); err != nil {
		return "", "", fmt.Errorf("list BackupStorageLocations: %w", err)
	}

	for i := range list.Items {
		if list.Items[i].Name == but {
			continue
		}

		bucket, err := r.Buckets.Open(ctx, &list.Items[i])
		if err != nil {
			continue
		}

		// The namespace doesn't matter for whether there are keys at all.
		s, err := look(ctx, bucket, "default", prints{})
		if err == nil && s.keyed {
			return list.Items[i].Name, s.foreign, nil
		}
	}

	return "", "", nil
}
