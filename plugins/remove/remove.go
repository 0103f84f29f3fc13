// Package remove holds the delete item actions: for each volume that a pod's or
// a claim's record in the tarball names, they ask for the deletion of its snapshot.
//
// Velero's Backup, and perhaps its storage location, are about to vanish, so
// what is asked for holds all that is needed. Errors of such an action are only
// logged by Velero (velero v1.18.3 internal/delete/delete_item_action_handler.go),
// and the Backup is deleted all the same: a snapshot that could not be asked for
// here stays in its repository. The package must not delete data itself.
package remove

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// executeBound bounds one Execute: Velero sets no deadline.
const executeBound = 60 * time.Second

// Connect gives the client of the cluster; it is called when one is needed, and often.
type Connect func() (client.Client, error)

// Action asks for the deletion of the snapshots that an item's record names.
type Action struct {
	log      logrus.FieldLogger
	connect  Connect
	resource string
	volumes  func(text string) (contract.Owner, []contract.Volume, error)
	key      string
}

// NewPodAction gives the action for pods.
func NewPodAction(log logrus.FieldLogger, connect Connect) *Action {
	return &Action{log: log, connect: connect, resource: "pods", key: contract.AnnotationVolumes, volumes: podVolumes}
}

// NewClaimAction gives the action for PersistentVolumeClaims.
func NewClaimAction(log logrus.FieldLogger, connect Connect) *Action {
	return &Action{log: log, connect: connect, resource: "persistentvolumeclaims", key: contract.AnnotationVolume, volumes: claimVolume}
}

// AppliesTo says which items the action is for.
func (a *Action) AppliesTo() (velero.ResourceSelector, error) {
	return velero.ResourceSelector{IncludedResources: []string{a.resource}}, nil
}

// Execute makes sure of a SnapshotDeletion for each volume of the item's
// record. A record of another backup, left on a restored workload, is none of this one's.
func (a *Action) Execute(in *velero.DeleteItemActionExecuteInput) error {
	item := unstructured.Unstructured{Object: in.Item.UnstructuredContent()}

	text, ok := item.GetAnnotations()[a.key]
	if !ok {
		return nil
	}

	owner, volumes, err := a.volumes(text)
	if err != nil {
		return fmt.Errorf("%s %s/%s: its snapshots are not deleted: %w", a.resource, item.GetNamespace(), item.GetName(), err)
	}

	if owner.Name != in.Backup.Name {
		a.log.Infof("%s %s/%s: its record belongs to backup %q and is ignored", a.resource, item.GetNamespace(), item.GetName(), owner.Name)

		return nil
	}

	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	return a.ask(ctx, in.Backup, owner, volumes)
}

func (a *Action) ask(ctx context.Context, b *velerov1.Backup, owner contract.Owner, volumes []contract.Volume) error {
	c, err := a.connect()
	if err != nil {
		return err
	}

	var failures []error

	for _, v := range volumes {
		want := jobs.NewDeletion(b.Namespace, v1alpha1.SnapshotDeletionSpec{
			Repository: v1alpha1.RepositoryReference{
				BackupStorageLocation: b.Spec.StorageLocation, Namespace: v.Repository.Namespace, ID: v.Repository.ID,
			},
			// The UID is the one of the record: a Backup that was found in the
			// object store by another cluster has another.
			Snapshot: v1alpha1.SnapshotReference{
				Job: v.Job, Backup: v1alpha1.OwnerReference{Name: owner.Name, UID: types.UID(owner.UID)},
			},
		})

		job, outcome, err := jobs.New(c, b.Namespace).EnsureDeletion(ctx, want)
		if err != nil {
			failures = append(failures, err)

			continue
		}

		a.log.WithField("job", job.Name).Infof("SnapshotDeletion %s/%s for the snapshot of %s: %s", job.Namespace, job.Name, v.Job, outcome)
	}

	return errors.Join(failures...)
}

func podVolumes(text string) (contract.Owner, []contract.Volume, error) {
	r, err := contract.DecodePodRecord(text)
	if err != nil {
		return contract.Owner{}, nil, err
	}

	volumes := make([]contract.Volume, 0, len(r.Volumes))
	for _, name := range slices.Sorted(maps.Keys(r.Volumes)) {
		volumes = append(volumes, r.Volumes[name])
	}

	return r.Backup, volumes, nil
}

func claimVolume(text string) (contract.Owner, []contract.Volume, error) {
	r, err := contract.DecodeClaimRecord(text)
	if err != nil {
		return contract.Owner{}, nil, err
	}

	return r.Backup, []contract.Volume{r.Volume}, nil
}
