// Package remove holds the delete item actions: for each volume that a pod's or
// a claim's record in the tarball names, or a job there tells of, they ask for the
// deletion of its snapshot.
//
// Velero's Backup, and perhaps its storage location, are about to vanish, so
// what is asked for holds all that is needed. Errors of such an action are only
// logged by Velero (velero v1.18.3 internal/delete/delete_item_action_handler.go),
// and the Backup is deleted all the same: the API server is asked again while time
// is left, and a snapshot that could not be asked for stays in its repository, which
// is said. The package must not delete data itself.
package remove

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// Bounds of the actions' calls.
const (
	// executeBound bounds one Execute: Velero sets no deadline.
	executeBound = 60 * time.Second
	// patience is how long the actions of a process wait in vain for an API server that refuses what they ask: a
	// backup has thousands of items, and each is looked at after the other.
	patience = 45 * time.Second
	// firstPause is the wait before the second attempt; it doubles with each up to longestPause.
	firstPause   = 500 * time.Millisecond
	longestPause = 8 * time.Second
)

// Connect returns the client of the cluster; it is called when one is needed, and often.
type Connect func() (client.Client, error)

// Session is what the actions of one process share. Velero may call them at the same time.
type Session struct {
	connect Connect
	clock   clock.Clock

	mu sync.Mutex
	// waited is how long was waited since the API server last did what it was asked.
	waited time.Duration
}

// NewSession returns a Session that has called nobody.
func NewSession(connect Connect, c clock.Clock) *Session { return &Session{connect: connect, clock: c} }

// Action asks for the deletion of the snapshots that an item's record names.
type Action struct {
	log      logrus.FieldLogger
	session  *Session
	resource string
	volumes  func(text string) (contract.Owner, []contract.Volume, error)
	key      string
}

// NewPodAction returns the action for pods.
func NewPodAction(log logrus.FieldLogger, s *Session) *Action {
	return &Action{log: log, session: s, resource: "pods", key: contract.AnnotationVolumes, volumes: podVolumes}
}

// NewClaimAction returns the action for PersistentVolumeClaims.
func NewClaimAction(log logrus.FieldLogger, s *Session) *Action {
	return &Action{log: log, session: s, resource: "persistentvolumeclaims", key: contract.AnnotationVolume, volumes: claimVolume}
}

// NewJobAction returns the action for VolumeBackups, which Velero writes into a backup when their operation is over. They
// tell of snapshots that no record does: those of a pod that Velero left out after its volumes had been asked for.
func NewJobAction(log logrus.FieldLogger, s *Session) *Action {
	return &Action{log: log, session: s, resource: "volumebackups." + v1alpha1.GroupName}
}

// AppliesTo says which items the action is for.
func (a *Action) AppliesTo() (velero.ResourceSelector, error) {
	return velero.ResourceSelector{IncludedResources: []string{a.resource}}, nil
}

// Execute makes sure of a SnapshotDeletion for each volume of the item's
// record. A record of another backup, left on a restored workload, is none of this one's.
func (a *Action) Execute(in *velero.DeleteItemActionExecuteInput) error {
	item := unstructured.Unstructured{Object: in.Item.UnstructuredContent()}

	owner, volumes, err := a.snapshots(&item)
	if err == nil && len(volumes) == 0 {
		return nil
	}

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

// snapshots returns whose snapshots the item tells of.
func (a *Action) snapshots(item *unstructured.Unstructured) (contract.Owner, []contract.Volume, error) {
	if a.volumes == nil {
		return jobVolume(item)
	}

	text, ok := item.GetAnnotations()[a.key]
	if !ok {
		return contract.Owner{}, nil, nil
	}

	return a.volumes(text)
}

func (a *Action) ask(ctx context.Context, b *velerov1.Backup, owner contract.Owner, volumes []contract.Volume) error {
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

		job, outcome, err := a.session.ensure(ctx, want)
		if err != nil {
			failures = append(failures, fmt.Errorf("the snapshot of %s stays in repository %s of namespace %s and location %s; "+
				"make the SnapshotDeletion by hand, with the Backup's UID %s (docs/back-up.md#delete-a-snapshot-by-hand): %w",
				v.Job, v.Repository.ID, v.Repository.Namespace, b.Spec.StorageLocation, owner.UID, err))

			continue
		}

		a.log.WithField("job", job.Name).Infof("SnapshotDeletion %s/%s for the snapshot of %s: %s", job.Namespace, job.Name, v.Job, outcome)
	}

	return errors.Join(failures...)
}

// ensure makes sure of the SnapshotDeletion. Nobody asks for it a second time, so that an API server that refuses is asked
// again while there is time.
func (s *Session) ensure(ctx context.Context, want *v1alpha1.SnapshotDeletion) (*v1alpha1.SnapshotDeletion, jobs.Outcome, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		job, outcome, err := s.once(ctx, want)
		if err == nil {
			s.restore()

			return job, outcome, nil
		}

		// An object that asks for something else stays there.
		if errors.Is(err, jobs.ErrConflict) || !s.spend(pause) {
			return nil, "", err
		}

		select {
		case <-ctx.Done():
			return nil, "", errors.Join(err, ctx.Err())
		case <-s.clock.After(pause):
		}
	}
}

func (s *Session) once(ctx context.Context, want *v1alpha1.SnapshotDeletion) (*v1alpha1.SnapshotDeletion, jobs.Outcome, error) {
	c, err := s.connect()
	if err != nil {
		return nil, "", err
	}

	return jobs.New(c, want.Namespace).EnsureDeletion(ctx, want)
}

// restore resets the patience of the process.
func (s *Session) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.waited = 0
}

// spend takes the pause from the process's patience, and reports whether there was that much left.
func (s *Session) spend(pause time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.waited+pause > patience {
		return false
	}

	s.waited += pause

	return true
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

// jobVolume reads a VolumeBackup as a record of its snapshot would.
func jobVolume(item *unstructured.Unstructured) (contract.Owner, []contract.Volume, error) {
	var job v1alpha1.VolumeBackup
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &job); err != nil {
		return contract.Owner{}, nil, fmt.Errorf("read VolumeBackup: %w", err)
	}

	repo := job.Spec.Repository
	if _, err := contract.RepositoryPath(repo.Namespace, repo.ID); err != nil {
		return contract.Owner{}, nil, fmt.Errorf("spec.repository: %w", err)
	}

	return contract.Owner{Name: job.Spec.Backup.Name, UID: string(job.Spec.Backup.UID)},
		[]contract.Volume{{Job: job.Name, Repository: contract.Repository{Namespace: repo.Namespace, ID: repo.ID}}}, nil
}
