package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

const (
	// busyAgain is how often a repository under the previous key is looked at for the end of its jobs.
	busyAgain = 15 * time.Second
	// failedAgain is how long a rotation that failed waits before the next attempt.
	failedAgain = time.Minute
)

// rotation is the rotation of the master key of all repositories, one at a time.
type rotation struct {
	// holder is the name of the Repository whose turn it is, and id the repository's.
	holder, id string
	// waiting are those whose turn it isn't.
	waiting map[string]bool
	// covered is when the namespaces of a location were last looked through, by location and previous fingerprint.
	covered map[string]time.Time
}

// rotateRepository brings what is under the previous master key to the current one: the repository
// in use, which stays ready meanwhile, and others of its namespace.
func (r *Repositories) rotateRepository(ctx context.Context, v view, id string) (outcome, error) {
	left := v.survey.left(v.ours.previous, id)
	if len(left) == 0 || v.ours.previous == v.ours.current {
		r.giveWay(v.repo.Name)

		if err := r.coverOthers(ctx, v); err != nil {
			return keyed(v, id, failedAgain, state.ReasonKeyRotationWaits, fmt.Sprintf("the other namespaces of the location could not be looked through: %v", err)), nil
		}

		return keyed(v, id, lookAgain, state.ReasonKeyCurrent, "it is opened by the master key of fingerprint "+v.ours.current), nil
	}

	if v.readOnly() {
		return keyed(v, id, lookAgain, state.ReasonLocationReadOnly, fmt.Sprintf(
			"BackupStorageLocation %s is read-only (spec.accessMode): the repository stays under the previous master key, of fingerprint %s, which must be kept in Secret %s to read it",
			v.location.Name, v.ours.previous, contract.MasterKeySecret)), nil
	}

	return r.rotateOne(ctx, v, id, left[0])
}

// keyed is the outcome for a ready repository, with what is to be said of its key.
func keyed(v view, id string, after time.Duration, reason, text string) outcome {
	out := ready(v, id)
	out.after = after
	out.current = &metav1.Condition{
		Type: v1alpha1.ConditionKeyCurrent, Status: metav1.ConditionFalse, Reason: reason, Message: state.Cut(text), ObservedGeneration: v.repo.Generation,
	}

	if reason == state.ReasonKeyCurrent {
		out.current.Status = metav1.ConditionTrue
	}

	return out
}

// rotateOne has a worker rotate the key of one repository when none of its jobs is under way, and then writes so into its key file.
func (r *Repositories) rotateOne(ctx context.Context, v view, id, next string) (outcome, error) {
	key := RepositoryKey(v.repo.Name)
	working := keyed(v, id, r.Bounds.Poll, state.ReasonKeyRotating, "a worker rotates repository "+next+" to the current master key")

	run, _ := r.Tasks.Look(key)

	switch run.State {
	case state.TaskNone:
	case state.TaskQueued, state.TaskRunning:
		return working, nil
	case state.TaskEnded:
		r.Tasks.End(key, task.Forget)

		if r.giveWay(v.repo.Name) == next && run.UID == v.repo.UID {
			return r.rotated(ctx, v, id, next, run.Failure)
		}
	}

	if wait, after, err := r.waits(ctx, v, next); err != nil || wait != "" {
		return keyed(v, id, after, state.ReasonKeyRotationWaits, wait), err
	}

	r.Tasks.Begin(key, task.Work{
		UID: v.repo.UID, Attempt: 1, RotateKey: true,
		Repository: v1alpha1.RepositoryReference{BackupStorageLocation: v.location.Name, Namespace: v.repo.Spec.Namespace, ID: next},
	})

	return working, nil
}

// rotated takes the end of a worker.
func (r *Repositories) rotated(ctx context.Context, v view, id, done string, failure *state.Failure) (outcome, error) {
	var err error

	if failure == nil {
		err = r.writeKey(ctx, v, done)
	} else {
		err = fmt.Errorf("%s: %s", failure.Reason, failure.Message)
	}

	if err == nil {
		r.event(v.repo, false, state.ReasonKeyRotated, fmt.Sprintf("rotated repository %s from the master key of fingerprint %s to that of %s", done, v.ours.previous, v.ours.current))

		return keyed(v, id, r.Bounds.Soon, state.ReasonKeyRotating, "repository "+done+" was rotated to the current master key"), nil
	}

	text := fmt.Sprintf("repository %s in BackupStorageLocation %s stays under the previous master key, and is tried again: %v", done, v.location.Name, err)
	r.event(v.repo, true, state.ReasonKeyRotationFailed, state.Cut(text))

	return keyed(v, id, failedAgain, state.ReasonKeyRotationFailed, text), nil
}

// writeKey writes into the key file that the repository is under the current key. It comes
// after the rotation: a repository under the current key whose file still names the
// previous one is opened by either, and brought over again, which changes nothing.
func (r *Repositories) writeKey(ctx context.Context, v view, id string) error {
	path, err := contract.KeyPath(v.repo.Spec.Namespace, id)
	if err != nil {
		return fmt.Errorf("path of the key file: %w", err)
	}

	k, err := readKey(ctx, v.bucket, path)
	if err != nil {
		return err
	}

	k.Fingerprint = v.ours.current

	content, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode key file: %w", err)
	}

	if err := v.bucket.Put(ctx, path, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}

	return nil
}

// waits returns what the rotation has to wait for, and for how long; or takes the turn.
func (r *Repositories) waits(ctx context.Context, v view, id string) (string, time.Duration, error) {
	// The cache is cheap, and the API server is right: it knows every job that may have
	// read the Secret before it had two keys.
	for _, reader := range []client.Reader{r.Client, r.Direct} {
		job, err := r.jobOf(ctx, reader, id)
		if err != nil {
			return "", 0, err
		}

		if job != "" {
			return job + " works with the repository; its key is rotated when that has ended", busyAgain, nil
		}
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	e := &r.rotation
	if e.holder != "" && e.holder != v.repo.Name {
		e.waiting[v.repo.Name] = true

		// The more wait, the seldomer each asks.
		return "its key is rotated after Repository " + e.holder, max(r.Bounds.Poll, time.Duration(len(e.waiting))*time.Second), nil
	}

	delete(e.waiting, v.repo.Name)
	e.holder, e.id = v.repo.Name, id

	return "", 0, nil
}

// giveWay lets the next one have its turn, and returns the ID of the repository whose turn it was, if it was the Repository's.
func (r *Repositories) giveWay(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()

	e := &r.rotation
	delete(e.waiting, name)

	if e.holder != name {
		return ""
	}

	id := e.id
	e.holder, e.id = "", ""

	for next := range e.waiting {
		r.changes.Notify(r.Namespace, RepositoryKey(next))
		break
	}

	return id
}

// jobOf names a job of the repository that has not ended; empty if there is none.
func (r *Repositories) jobOf(ctx context.Context, reader client.Reader, id string) (string, error) {
	var (
		backups   v1alpha1.VolumeBackupList
		restores  v1alpha1.VolumeRestoreList
		deletions v1alpha1.SnapshotDeletionList
	)

	for _, list := range []client.ObjectList{&backups, &restores, &deletions} {
		if err := reader.List(ctx, list, client.InNamespace(r.Namespace)); err != nil {
			return "", fmt.Errorf("list %T: %w", list, err)
		}
	}

	for i := range backups.Items {
		if j := &backups.Items[i]; j.Spec.Repository.ID == id && !j.Status.Phase.Terminal() {
			return "VolumeBackup " + j.Name, nil
		}
	}

	for i := range restores.Items {
		if j := &restores.Items[i]; j.Spec.Repository.ID == id && !j.Status.Phase.Terminal() {
			return "VolumeRestore " + j.Name, nil
		}
	}

	for i := range deletions.Items {
		if j := &deletions.Items[i]; j.Spec.Repository.ID == id && !j.Status.Phase.Terminal() {
			return "SnapshotDeletion " + j.Name, nil
		}
	}

	return "", nil
}

// coverOthers makes Repositories for the namespaces of the location that have
// repositories under the previous key, and none in this cluster: they would be left behind.
func (r *Repositories) coverOthers(ctx context.Context, v view) error {
	if v.ours.previous == "" || r.coveredLately(v) {
		return nil
	}

	namespaces, _, err := v.bucket.List(ctx, contract.KeysPath())
	if err != nil {
		return fmt.Errorf("list key fingerprints: %w", err)
	}

	for _, n := range namespaces {
		if err := r.coverOther(ctx, v, n); err != nil {
			return err
		}
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.rotation.covered[v.coverage()] = r.Clock.Now()

	return nil
}

func (v view) coverage() string { return v.location.Name + " " + v.ours.previous }

func (r *Repositories) coveredLately(v view) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	at, ok := r.rotation.covered[v.coverage()]

	return ok && r.Clock.Now().Sub(at) < lookAgain/2
}

func (r *Repositories) coverOther(ctx context.Context, v view, namespace string) error {
	want := jobs.NewRepository(r.Namespace, v.location.Name, namespace)

	if found, err := r.read(ctx, want.Name, &v1alpha1.Repository{}); found || err != nil {
		return err
	}

	folder, err := contract.RepositoriesPath(namespace)
	if err != nil {
		return nil //nolint:nilerr // a folder that isn't ours
	}

	made, _, err := v.bucket.List(ctx, folder)
	if err != nil {
		return fmt.Errorf("list repositories of namespace %s: %w", namespace, err)
	}

	under, err := readKeys(ctx, v.bucket, namespace)
	if err != nil {
		return err
	}

	if !slices.ContainsFunc(made, func(id string) bool { return under[id] == v.ours.previous }) {
		return nil
	}

	if err := r.Client.Create(ctx, want); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make Repository %s, to bring namespace %s of BackupStorageLocation %s to the current master key: %w", want.Name, namespace, v.location.Name, err)
	}

	return nil
}
