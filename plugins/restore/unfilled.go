package restore

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// mark says on a claim that is made for the operation's job that it isn't filled, from its first moment on. A
// claim that is there already keeps what it says of itself: it may be whole and in use, and the controller marks it
// before anything is written. But an update by Velero would take off what the item doesn't have.
func (s *Session) mark(item *unstructured.Unstructured, r *velerov1.Restore, operationID string) error {
	updates := r.Spec.ExistingResourcePolicy == velerov1.PolicyTypeUpdate
	if operationID == "" && !updates {
		return nil
	}

	live, err := s.liveClaim(item, r)
	if err != nil {
		return err
	}

	value := ""

	switch {
	case live != nil:
		value = live.Labels[contract.LabelUnfilled]
	case operationID != "":
		id, err := operation.Parse(operationID)
		if err != nil {
			return err
		}

		value = id.Jobs[0]
	}

	if value != "" {
		contract.Label(item.Object, contract.LabelUnfilled, value)
	}

	return nil
}

// liveClaim reads the claim that the item would be restored over; nil where there is none.
func (s *Session) liveClaim(item *unstructured.Unstructured, r *velerov1.Restore) (*corev1.PersistentVolumeClaim, error) {
	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	claim := new(corev1.PersistentVolumeClaim)
	key := types.NamespacedName{Namespace: mapped(item.GetNamespace(), r), Name: item.GetName()}

	err = c.Get(ctx, key, claim)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("claim %s is not restored, for it can't be seen whether it is there already: %w; restore again", key, err)
	}

	if err != nil {
		return nil, nil
	}

	return claim, nil
}
