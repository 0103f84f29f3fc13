package restore

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// unbound returns an error where the claim would be bound to its original volume, whose data it was not to touch:
// this restore has made the PersistentVolume anew, as it was, for the backup holds no record with it. A claim that
// names no volume is bound to one that names the claim.
func (s *Session) unbound(claim runtime.Unstructured, r *velerov1.Restore) error {
	item := &unstructured.Unstructured{Object: claim.UnstructuredContent()}

	name, _, _ := unstructured.NestedString(item.Object, "spec", "volumeName")
	if name == "" {
		return nil
	}

	c, err := s.connect()
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	var pv corev1.PersistentVolume
	if err := c.Get(ctx, types.NamespacedName{Name: name}, &pv); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read PersistentVolume %s, which it was bound to: %w", name, err)
	}

	ref := pv.Spec.ClaimRef
	if pv.Labels[contract.LabelRestoreName] != jobs.LabelValue(r.Name) || ref == nil ||
		ref.Name != item.GetName() || ref.Namespace != mapped(item.GetNamespace(), r) {
		return nil
	}

	return fmt.Errorf("PersistentVolume %s, the original one, was made anew by this restore, for it has no record in the backup, "+
		"and the claim would be bound to it; delete it (kubectl delete persistentvolume %s) and restore again with --exclude-resources persistentvolumes", name, name)
}
