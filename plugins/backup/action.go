package backup

import (
	"context"
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// action is what the three actions have in common: they report operations, and
// apply to one resource.
type action struct {
	name     string
	session  *Session
	log      logrus.FieldLogger
	resource string
}

// Name is the name that the action is registered under.
func (a *action) Name() string { return a.name }

// AppliesTo says which items the action is for.
func (a *action) AppliesTo() (velero.ResourceSelector, error) {
	return velero.ResourceSelector{IncludedResources: []string{a.resource}}, nil
}

// begin returns what each call of Execute starts with: its bound in time, the item
// without what earlier backups and restores have left on it, and a log that names
// it; and it says what is wrong with the settings, if nobody has yet.
func (a *action) begin(kind string, item runtime.Unstructured, b *velerov1.Backup) (context.Context, context.CancelFunc, *unstructured.Unstructured, logrus.FieldLogger) {
	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	u := &unstructured.Unstructured{Object: item.UnstructuredContent()}
	contract.Strip(u.Object)

	a.session.heed(ctx, a.log, b)

	return ctx, cancel, u, a.log.WithField(kind, strings.TrimPrefix(u.GetNamespace()+"/"+u.GetName(), "/"))
}

// Progress returns how far the jobs of an operation are. An error would end the
// operation for good, so there is one only for an ID that isn't ours.
func (a *action) Progress(operationID string, b *velerov1.Backup) (velero.OperationProgress, error) {
	id, err := operation.Parse(operationID)
	if err != nil {
		return velero.OperationProgress{}, err
	}

	return a.session.progress(a.log, id, b), nil
}

// Cancel asks for all jobs of an operation to be stopped. Velero calls it when the operation has taken
// longer than it may, and doesn't wait for it.
func (a *action) Cancel(operationID string, b *velerov1.Backup) error {
	id, err := operation.Parse(operationID)
	if err != nil {
		return err
	}

	return a.session.cancel(id.Jobs, b.Namespace, b.Spec.ItemOperationTimeout.Duration)
}

func typed[T any](u *unstructured.Unstructured) (*T, error) {
	object := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, object); err != nil {
		return nil, fmt.Errorf("read %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}

	return object, nil
}

// operationFor returns the operation on the jobs, and the jobs as the items that
// Velero writes into the backup when the operation is over. No operation may
// begin while Velero finalizes.
func operationFor(b *velerov1.Backup, list []*v1alpha1.VolumeBackup) (string, []velero.ResourceIdentifier) {
	if len(list) == 0 || finalizing(b) {
		return "", nil
	}

	id := operation.ID{Kind: operation.Backup}
	for _, job := range list {
		id.Jobs = append(id.Jobs, job.Name)
	}

	return id.String(), jobItems(list)
}

// jobItems returns the jobs as items of a backup.
func jobItems(list []*v1alpha1.VolumeBackup) []velero.ResourceIdentifier {
	items := make([]velero.ResourceIdentifier, 0, len(list))

	for _, job := range list {
		items = append(items, velero.ResourceIdentifier{
			GroupResource: schema.GroupResource{Group: v1alpha1.GroupName, Resource: "volumebackups"},
			Namespace:     job.Namespace, Name: job.Name,
		})
	}

	return items
}
