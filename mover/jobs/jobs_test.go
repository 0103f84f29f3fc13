package jobs_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

const velero = "velero"

func newClient(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()

	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))

	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Repository{}).Build()
}

func backupSpec(v v1alpha1.VolumeReference) v1alpha1.VolumeBackupSpec {
	return v1alpha1.VolumeBackupSpec{
		Backup:      v1alpha1.OwnerReference{Name: "nightly", UID: "b-1"},
		Repository:  v1alpha1.RepositoryReference{BackupStorageLocation: "default", Namespace: "shop", ID: "abcdefghijklmnopqrstuvwxyz"},
		Volume:      v,
		Source:      v1alpha1.SourceIdentity{Path: "/persistentvolumeclaim/data", Instance: "pvc/c-1/v-1"},
		RequestedBy: v1alpha1.RequestedByClaim,
	}
}

func restoreSpec(v v1alpha1.VolumeReference) v1alpha1.VolumeRestoreSpec {
	return v1alpha1.VolumeRestoreSpec{
		Restore:    v1alpha1.OwnerReference{Name: "again", UID: "r-1"},
		Repository: backupSpec(v).Repository,
		Snapshot:   v1alpha1.SnapshotReference{Job: "vb-1", Backup: v1alpha1.OwnerReference{Name: "nightly", UID: "b-1"}},
		Target:     v,
	}
}

func TestEnsureBackup(t *testing.T) {
	tests := map[string]struct {
		change  func(s *v1alpha1.VolumeBackupSpec)
		outcome jobs.Outcome
		err     error
	}{
		"the same again is found": {outcome: jobs.Found},
		"a pod that mounts the same claim finds the claim's job": {
			change: func(s *v1alpha1.VolumeBackupSpec) {
				s.Volume.Pod = v1alpha1.PodReference{Name: "web-1", UID: "p-2"}
				s.Volume.Name = "storage"
				s.RequestedBy = v1alpha1.RequestedByPod
				s.Options.Frozen = true
			},
			outcome: jobs.Found,
		},
		"a cancelled job is still the same job": {
			change:  func(s *v1alpha1.VolumeBackupSpec) { s.Cancel = true },
			outcome: jobs.Found,
		},
		"another repository is a conflict": {
			change: func(s *v1alpha1.VolumeBackupSpec) { s.Repository.BackupStorageLocation = "second" },
			err:    jobs.ErrConflict,
		},
		"another source is a conflict": {
			change: func(s *v1alpha1.VolumeBackupSpec) { s.Source.Instance = "pvc/c-1/v-2" },
			err:    jobs.ErrConflict,
		},
		"another volume is another job": {
			change:  func(s *v1alpha1.VolumeBackupSpec) { s.Volume.Claim.Name = "logs" },
			outcome: jobs.Created,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			j := jobs.New(newClient(t), velero)

			first, outcome, err := j.EnsureBackup(ctx, jobs.NewBackup(velero, "node-a", backupSpec(claimVolume("web-0"))))
			require.NoError(t, err)
			require.Equal(t, jobs.Created, outcome)

			spec := backupSpec(claimVolume("web-0"))
			if tt.change != nil {
				tt.change(&spec)
			}

			second, outcome, err := j.EnsureBackup(ctx, jobs.NewBackup(velero, "node-a", spec))
			if tt.err != nil {
				require.ErrorIs(t, err, tt.err)
				assert.ErrorContains(t, err, first.Name)

				return
			}

			require.NoError(t, err)
			assert.Equal(t, tt.outcome, outcome)

			if outcome == jobs.Found {
				assert.Equal(t, first, second, "the job that is there is the one returned")
			}
		})
	}
}

func TestPodsThatShareAClaimShareTheRestoreJob(t *testing.T) {
	ctx := context.Background()
	j := jobs.New(newClient(t), velero)

	first, outcome, err := j.EnsureRestore(ctx, jobs.NewRestore(velero, restoreSpec(claimVolume("web-0"))))
	require.NoError(t, err)
	assert.Equal(t, jobs.Created, outcome)

	second, outcome, err := j.EnsureRestore(ctx, jobs.NewRestore(velero, restoreSpec(claimVolume("web-1"))))
	require.NoError(t, err)
	assert.Equal(t, jobs.Found, outcome)
	assert.Equal(t, first.Name, second.Name)

	other := restoreSpec(claimVolume("web-1"))
	other.Snapshot.Job = "vb-2"
	_, _, err = j.EnsureRestore(ctx, jobs.NewRestore(velero, other))
	require.ErrorIs(t, err, jobs.ErrConflict)
	assert.ErrorContains(t, err, "vb-2")
}

func TestEnsureDeletionIsIdempotent(t *testing.T) {
	ctx := context.Background()
	j := jobs.New(newClient(t), velero)
	spec := v1alpha1.SnapshotDeletionSpec{Repository: restoreSpec(claimVolume("w")).Repository, Snapshot: restoreSpec(claimVolume("w")).Snapshot}

	_, outcome, err := j.EnsureDeletion(ctx, jobs.NewDeletion(velero, spec))
	require.NoError(t, err)
	assert.Equal(t, jobs.Created, outcome)

	_, outcome, err = j.EnsureDeletion(ctx, jobs.NewDeletion(velero, spec))
	require.NoError(t, err)
	assert.Equal(t, jobs.Found, outcome)
}

func TestLabels(t *testing.T) {
	backup := jobs.NewBackup(velero, "node-a", backupSpec(claimVolume("web-0")))
	assert.Equal(t, map[string]string{
		contract.LabelBackupName: "nightly", contract.LabelBackupUID: "b-1",
		contract.LabelClaimUID: "c-1", contract.LabelNode: "node-a",
	}, backup.Labels)

	restore := jobs.NewRestore(velero, restoreSpec(claimVolume("web-0")))
	assert.Equal(t, map[string]string{
		contract.LabelRestoreName: "again", contract.LabelRestoreUID: "r-1",
		contract.LabelBackupName: "nightly", contract.LabelExcludeFromBackup: "true",
	}, restore.Labels)
}

func TestListsHoldTheOwnersJobsOnly(t *testing.T) {
	ctx := context.Background()
	mine := jobs.NewBackup(velero, "n", backupSpec(claimVolume("web-0")))
	foreign := backupSpec(claimVolume("web-0"))
	foreign.Backup.UID = "b-2"
	elsewhere := jobs.NewBackup("tenant", "n", backupSpec(emptyDirVolume("web-0", "cache")))
	restore := jobs.NewRestore(velero, restoreSpec(claimVolume("web-0")))
	j := jobs.New(newClient(t, mine, jobs.NewBackup(velero, "n", foreign), elsewhere, restore), velero)

	backups, err := j.BackupsOf(ctx, "b-1")
	require.NoError(t, err)
	require.Len(t, backups, 1)
	assert.Equal(t, mine.Name, backups[0].Name)

	restores, err := j.RestoresOf(ctx, "r-1")
	require.NoError(t, err)
	require.Len(t, restores, 1)
	assert.Equal(t, restore.Name, restores[0].Name)
}

func TestCancel(t *testing.T) {
	ctx := context.Background()
	b, r := jobs.NewBackup(velero, "n", backupSpec(claimVolume("web-0"))), jobs.NewRestore(velero, restoreSpec(claimVolume("web-0")))
	j := jobs.New(newClient(t, b, r), velero)

	require.NoError(t, j.CancelBackup(ctx, b.Name, time.Hour))
	require.NoError(t, j.CancelBackup(ctx, b.Name, time.Hour), "cancelling twice")
	require.NoError(t, j.CancelRestore(ctx, r.Name, 0))
	require.NoError(t, j.CancelBackup(ctx, "vb-gone", time.Hour), "a job that is gone needs no stopping")

	gotBackup, err := j.Backup(ctx, b.Name)
	require.NoError(t, err)
	assert.True(t, gotBackup.Spec.Cancel)
	assert.Equal(t, "1h0m0s", gotBackup.Annotations[v1alpha1.AnnotationOperationTimeout])
	assert.Equal(t, b.Spec.Volume, gotBackup.Spec.Volume, "the rest of the spec stays")

	gotRestore, err := j.Restore(ctx, r.Name)
	require.NoError(t, err)
	assert.True(t, gotRestore.Spec.Cancel)
	assert.Empty(t, gotRestore.Annotations, "Velero's bound was not the cause")
}

// unserved is what client-go makes of the API server's answer to a path that it doesn't serve.
func unserved() error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{Group: v1alpha1.GroupName, Resource: "volumebackups"},
		"x", "404 page not found", 0, true)
}

func TestMissingResourceDefinitionsAreToldFromMissingObjects(t *testing.T) {
	ctx := context.Background()

	for name, failure := range map[string]error{
		"the API server doesn't serve the path": unserved(),
		"discovery doesn't know the kind":       &meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "VolumeBackup"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := interceptor.NewClient(newClient(t), interceptor.Funcs{
				Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return failure },
				Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
					return failure
				},
				List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return failure },
				Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
					return failure
				},
			})
			j := jobs.New(c, velero)

			_, _, err := j.EnsureBackup(ctx, jobs.NewBackup(velero, "n", backupSpec(claimVolume("w"))))
			require.ErrorIs(t, err, jobs.ErrNotInstalled)
			_, err = j.BackupsOf(ctx, "b-1")
			require.ErrorIs(t, err, jobs.ErrNotInstalled)
			_, err = j.Backup(ctx, "vb-1")
			require.ErrorIs(t, err, jobs.ErrNotInstalled)
			_, err = j.EnsureRepository(ctx, "default", "shop")
			require.ErrorIs(t, err, jobs.ErrNotInstalled)
			require.ErrorIs(t, j.CancelBackup(ctx, "vb-1", time.Hour), jobs.ErrNotInstalled)
		})
	}

	_, err := jobs.New(newClient(t), velero).Backup(ctx, "vb-1")
	require.NotErrorIs(t, err, jobs.ErrNotInstalled)
	assert.True(t, apierrors.IsNotFound(err))
}

func TestWaitRepository(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 700, time.UTC)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: start.Add(d).Truncate(time.Second)} }
	status := func(phase v1alpha1.RepositoryPhase, reason string, looked *metav1.Time) v1alpha1.RepositoryStatus {
		return v1alpha1.RepositoryStatus{Phase: phase, Reason: reason, Message: "no master key", LastCheckedTimestamp: looked}
	}
	known := status(v1alpha1.RepositoryNotReady, "StoreUnavailable", at(0))
	known.ID = "abcdefghijklmnopqrstuvwxyz"
	ready := v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryReady, ID: "abcdefghijklmnopqrstuvwxyz"}
	there := func(place string) v1alpha1.RepositoryStatus {
		s := ready
		s.Place = place

		return s
	}
	short, long := 20*time.Millisecond, time.Minute

	tests := map[string]struct {
		seen            []v1alpha1.RepositoryStatus
		bound, creation time.Duration
		// slow is for how long the first status is seen.
		slow  time.Duration
		err   error
		says  string
		poked bool
	}{
		"ready with its ID":                 {seen: []v1alpha1.RepositoryStatus{{}, ready}, bound: long, creation: long},
		"ready where the location points":   {seen: []v1alpha1.RepositoryStatus{there("here")}, bound: short, creation: long},
		"ready elsewhere, and then here":    {seen: []v1alpha1.RepositoryStatus{there("elsewhere"), there("here")}, bound: long, creation: long, poked: true},
		"ready elsewhere, and nobody looks": {seen: []v1alpha1.RepositoryStatus{there("elsewhere")}, bound: short, creation: long, err: jobs.ErrRepositoryUnanswered, says: "shop-", poked: true},
		"not ready says why at once":        {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNotReady, "KeyMissing", at(0))}, bound: long, creation: long, err: jobs.ErrRepositoryNotReady, says: "KeyMissing: no master key"},
		"not ready long ago, and ready":     {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNotReady, "KeyMissing", at(-time.Hour)), ready}, bound: long, creation: long, poked: true},
		"not ready long ago, and again":     {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNotReady, "KeyMissing", at(-time.Hour)), status(v1alpha1.RepositoryNotReady, "StoreDown", at(time.Second))}, bound: long, creation: long, err: jobs.ErrRepositoryNotReady, says: "StoreDown", poked: true},
		"not ready long ago, and no word":   {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNotReady, "KeyMissing", at(-time.Hour))}, bound: short, creation: long, err: jobs.ErrRepositoryNotReady, says: "looked at 2026-01-02T02:04:05Z", poked: true},
		"nobody looks at it":                {seen: []v1alpha1.RepositoryStatus{{}}, bound: short, creation: long, err: jobs.ErrRepositoryUnanswered, says: "shop-"},
		"it is being made for long":         {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNew, "RepositoryCreating", at(0))}, bound: short, creation: 3 * short, err: jobs.ErrRepositoryCreating, says: "still being created: RepositoryCreating"},
		"it is made after the bound":        {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNew, "RepositoryCreating", at(0)), ready}, bound: short, creation: long, slow: 3 * short},
		"a store that doesn't answer":       {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNotReady, "StoreUnavailable", at(0)), ready}, bound: long, creation: long, slow: 3 * short},
		"a store that never answers":        {seen: []v1alpha1.RepositoryStatus{status(v1alpha1.RepositoryNotReady, "StoreUnavailable", at(0))}, bound: short, creation: long, err: jobs.ErrRepositoryNotReady, says: "StoreUnavailable"},
		"such a store, and a known ID":      {seen: []v1alpha1.RepositoryStatus{known}, bound: long, creation: long},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newClient(t)
			_, err := jobs.New(c, velero).EnsureRepository(context.Background(), "default", "shop")
			require.NoError(t, err)

			looks, began := 0, time.Now()
			seen := interceptor.NewClient(c, interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
					err := c.Get(ctx, key, obj, opts...)
					if repo, ok := obj.(*v1alpha1.Repository); ok && err == nil {
						repo.Status = tt.seen[min(looks, len(tt.seen)-1)]
						if time.Since(began) < tt.slow {
							repo.Status = tt.seen[0]

							return nil
						}

						looks++
					}

					return err
				},
			})

			repo, err := jobs.New(seen, velero).WaitRepository(context.Background(), "default", "shop",
				jobs.RepositoryWait{Since: start, Place: "here", Now: start, Every: time.Millisecond, Bound: tt.bound, Creation: tt.creation})

			var kept v1alpha1.Repository
			require.NoError(t, c.Get(context.Background(), types.NamespacedName{Namespace: velero, Name: jobs.RepositoryName("default", "shop")}, &kept))
			assert.Equal(t, tt.poked, kept.Annotations[contract.AnnotationLookAgain] == "2026-01-02T03:04:05Z", "it asks for a look only where the last one is too old")

			if tt.err != nil {
				require.ErrorIs(t, err, tt.err)
				assert.ErrorContains(t, err, tt.says)

				return
			}

			require.NoError(t, err)
			assert.Equal(t, ready.ID, repo.Status.ID)
			assert.Equal(t, v1alpha1.RepositorySpec{BackupStorageLocation: "default", Namespace: "shop"}, repo.Spec)
		})
	}
}

func TestWaitRepositoryOutlivesAnAPIServerThatStumbles(t *testing.T) {
	looks := 0
	seen := interceptor.NewClient(newClient(t), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			looks++
			if looks == 2 {
				return errors.New("connection refused")
			}

			err := c.Get(ctx, key, obj, opts...)
			if repo, ok := obj.(*v1alpha1.Repository); ok && looks > 2 {
				repo.Status = v1alpha1.RepositoryStatus{Phase: v1alpha1.RepositoryReady, ID: "abcdefghijklmnopqrstuvwxyz"}
			}

			return err
		},
	})

	_, err := jobs.New(seen, velero).WaitRepository(context.Background(), "default", "shop",
		jobs.RepositoryWait{Every: time.Millisecond, Bound: time.Minute, Creation: time.Minute})
	require.NoError(t, err)
}

func TestProgress(t *testing.T) {
	start := metav1.Now()
	job := jobs.NewBackup(velero, "n", backupSpec(emptyDirVolume("web-0", "cache")))
	assert.Equal(t, v1alpha1.PhaseNew, jobs.BackupProgress(job).Phase, "an empty phase means New")

	job.Status.JobStatus = v1alpha1.JobStatus{
		Phase: v1alpha1.PhaseFailed, Reason: "R", Message: "M", Node: "n", StartTimestamp: &start, CompletionTimestamp: &start,
		Progress: v1alpha1.Progress{BytesDone: 1, TotalBytes: 2},
	}
	assert.Equal(t, jobs.Progress{
		Job: job.Name, Volume: "web-0/cache", Node: "n", Phase: v1alpha1.PhaseFailed, Reason: "R", Message: "M",
		BytesDone: 1, BytesTotal: 2, Started: start.Time, Ended: start.Time,
	}, jobs.BackupProgress(job))
	assert.Equal(t, "data", jobs.RestoreProgress(jobs.NewRestore(velero, restoreSpec(claimVolume("w")))).Volume)
}
