package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// Errors that the functions of this package wrap.
var (
	// ErrNotInstalled says that the API server doesn't know Estiba's kinds.
	ErrNotInstalled = errors.New("estiba's resource definitions are not installed in this cluster")
	// ErrConflict says that a job of that name exists and asks for something else.
	ErrConflict = errors.New("a job of that name asks for something else")
)

// Outcome says what Ensure did.
type Outcome string

// The outcomes of Ensure.
const (
	// Created says that the job was made by this call.
	Created Outcome = "created"
	// Found says that the job was there already and asks for the same.
	Found Outcome = "found"
)

// Jobs reads and writes the jobs in one namespace. It keeps nothing, and may be
// used by many goroutines at once.
type Jobs struct {
	client    client.Client
	namespace string
}

// New returns the Jobs in Velero's namespace. The client's scheme must hold the kinds of v1alpha1.
func New(c client.Client, namespace string) *Jobs {
	return &Jobs{client: c, namespace: namespace}
}

// Namespace returns the namespace of the jobs, which is Velero's own.
func (j *Jobs) Namespace() string { return j.namespace }

// EnsureBackup makes the VolumeBackup, or finds it where an earlier call, or
// another item of the same backup, has made it. The job that is there then is
// the one returned: which pod it is read through, who reports it and its options
// are the choice of whoever came first. Errors wrap ErrNotInstalled or ErrConflict
// where they apply.
func (j *Jobs) EnsureBackup(ctx context.Context, want *v1alpha1.VolumeBackup) (*v1alpha1.VolumeBackup, Outcome, error) {
	have := want.DeepCopy()

	outcome, err := j.ensure(ctx, have, func() error { return sameBackup(have, want) })
	if err != nil {
		return nil, "", fmt.Errorf("ensure VolumeBackup %s/%s: %w", want.Namespace, want.Name, err)
	}

	return have, outcome, nil
}

// EnsureRestore makes the VolumeRestore or finds it. Errors wrap ErrNotInstalled
// or ErrConflict where they apply.
func (j *Jobs) EnsureRestore(ctx context.Context, want *v1alpha1.VolumeRestore) (*v1alpha1.VolumeRestore, Outcome, error) {
	have := want.DeepCopy()

	outcome, err := j.ensure(ctx, have, func() error { return sameRestore(have, want) })
	if err != nil {
		return nil, "", fmt.Errorf("ensure VolumeRestore %s/%s: %w", want.Namespace, want.Name, err)
	}

	return have, outcome, nil
}

// EnsureDeletion makes the SnapshotDeletion or finds it. Errors wrap
// ErrNotInstalled or ErrConflict where they apply.
func (j *Jobs) EnsureDeletion(ctx context.Context, want *v1alpha1.SnapshotDeletion) (*v1alpha1.SnapshotDeletion, Outcome, error) {
	have := want.DeepCopy()

	outcome, err := j.ensure(ctx, have, func() error { return differ(have.Name, "spec", have.Spec, want.Spec) })
	if err != nil {
		return nil, "", fmt.Errorf("ensure SnapshotDeletion %s/%s: %w", want.Namespace, want.Name, err)
	}

	return have, outcome, nil
}

// Backup reads one VolumeBackup. Errors wrap ErrNotInstalled, or satisfy
// apierrors.IsNotFound where there is none of that name.
func (j *Jobs) Backup(ctx context.Context, name string) (*v1alpha1.VolumeBackup, error) {
	var job v1alpha1.VolumeBackup
	if err := j.get(ctx, name, &job); err != nil {
		return nil, fmt.Errorf("read VolumeBackup %s/%s: %w", j.namespace, name, err)
	}

	return &job, nil
}

// Restore reads one VolumeRestore. Errors wrap ErrNotInstalled, or satisfy
// apierrors.IsNotFound where there is none of that name.
func (j *Jobs) Restore(ctx context.Context, name string) (*v1alpha1.VolumeRestore, error) {
	var job v1alpha1.VolumeRestore
	if err := j.get(ctx, name, &job); err != nil {
		return nil, fmt.Errorf("read VolumeRestore %s/%s: %w", j.namespace, name, err)
	}

	return &job, nil
}

// BackupsOf lists the VolumeBackups of the Velero Backup with that UID in one call.
func (j *Jobs) BackupsOf(ctx context.Context, backup types.UID) ([]v1alpha1.VolumeBackup, error) {
	var list v1alpha1.VolumeBackupList
	if err := j.list(ctx, &list, contract.LabelBackupUID, backup); err != nil {
		return nil, fmt.Errorf("list VolumeBackups of backup %s: %w", backup, err)
	}

	return list.Items, nil
}

// RestoresOf lists the VolumeRestores of the Velero Restore with that UID in one call.
func (j *Jobs) RestoresOf(ctx context.Context, restore types.UID) ([]v1alpha1.VolumeRestore, error) {
	var list v1alpha1.VolumeRestoreList
	if err := j.list(ctx, &list, contract.LabelRestoreUID, restore); err != nil {
		return nil, fmt.Errorf("list VolumeRestores of restore %s: %w", restore, err)
	}

	return list.Items, nil
}

// CancelBackup asks for the VolumeBackup to be stopped. Bound is Velero's for the operation, if it asks
// because that has passed, and else 0. A job that is gone needs no stopping.
func (j *Jobs) CancelBackup(ctx context.Context, name string, bound time.Duration) error {
	job := &v1alpha1.VolumeBackup{ObjectMeta: metav1.ObjectMeta{Namespace: j.namespace, Name: name}}
	if err := j.cancel(ctx, job, bound); err != nil {
		return fmt.Errorf("cancel VolumeBackup %s/%s: %w", j.namespace, name, err)
	}

	return nil
}

// CancelRestore asks for the VolumeRestore to be stopped. Bound is Velero's for the operation, if it asks
// because that has passed, and else 0. A job that is gone needs no stopping.
func (j *Jobs) CancelRestore(ctx context.Context, name string, bound time.Duration) error {
	job := &v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{Namespace: j.namespace, Name: name}}
	if err := j.cancel(ctx, job, bound); err != nil {
		return fmt.Errorf("cancel VolumeRestore %s/%s: %w", j.namespace, name, err)
	}

	return nil
}

// ensure creates the object or reads the one that has its name into it, and
// then has it compared.
func (j *Jobs) ensure(ctx context.Context, obj client.Object, compare func() error) (Outcome, error) {
	err := j.client.Create(ctx, obj)
	if err == nil {
		return Created, nil
	}

	if !apierrors.IsAlreadyExists(err) {
		return "", known(err)
	}

	if err := j.client.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
		return "", known(err)
	}

	if err := compare(); err != nil {
		return "", err
	}

	return Found, nil
}

func (j *Jobs) get(ctx context.Context, name string, into client.Object) error {
	return known(j.client.Get(ctx, types.NamespacedName{Namespace: j.namespace, Name: name}, into))
}

func (j *Jobs) list(ctx context.Context, into client.ObjectList, label string, uid types.UID) error {
	err := j.client.List(ctx, into, client.InNamespace(j.namespace), client.MatchingLabels{label: string(uid)})
	if apierrors.IsNotFound(err) {
		// A list of a kind that exists is empty, never missing.
		return fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}

	return known(err)
}

func (j *Jobs) cancel(ctx context.Context, obj client.Object, bound time.Duration) error {
	text := `{"spec":{"cancel":true}}`
	if bound > 0 {
		text = fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}},"spec":{"cancel":true}}`, v1alpha1.AnnotationOperationTimeout, bound)
	}

	patch := client.RawPatch(types.MergePatchType, []byte(text))

	err := known(j.client.Patch(ctx, obj, patch))
	if errors.Is(err, ErrNotInstalled) {
		return err
	}

	return client.IgnoreNotFound(err)
}

// known turns the API server's ways to say that it doesn't know a kind into
// ErrNotInstalled. A path that isn't served answers 404 without a Status
// object, which client-go marks as an unexpected response; an object that
// doesn't exist answers with one.
func known(err error) error {
	unserved := apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
	if meta.IsNoMatchError(err) || unserved {
		return fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}

	return err
}
