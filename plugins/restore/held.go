package restore

import (
	"errors"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/estiba-dev/estiba/mover/contract"
)

// held gives the pod so that it exists and is never scheduled, and leaves the
// reason on it and for AreAdditionalItemsReady.
func (a *PodAction) held(item *unstructured.Unstructured, r *velerov1.Restore, why error) (*velero.RestoreItemActionExecuteOutput, error) {
	name := item.GetNamespace() + "/" + item.GetName()

	err := holdBack(item, fmt.Sprintf("restore %s: %v; mend that, delete the workload or the namespace, and restore again", r.Name, why))
	if err != nil {
		return nil, fmt.Errorf("pod %s is not restored, for it would start without its data: %w", name, errors.Join(why, err))
	}

	err = fmt.Errorf("pod %s is held back from starting without its data, by its scheduling gate %s: %w; "+
		"mend that, delete the workload or the namespace, and restore again", name, contract.SchedulingGate, why)
	a.session.keepHeld(r, err)

	out := velero.NewRestoreItemActionExecuteOutput(item)
	out.WaitForAdditionalItems = true

	return out, nil
}

// holdBack puts the scheduling gate into the pod, and the reason beside it.
func holdBack(item *unstructured.Unstructured, why string) error {
	// The API server takes no scheduling gate on a pod that names its node.
	unstructured.RemoveNestedField(item.Object, "spec", "nodeName")

	if err := insert(item, map[string]any{"name": contract.SchedulingGate}, false, "spec", "schedulingGates"); err != nil {
		return err
	}

	annotate(item, contract.AnnotationHeld, why)

	return nil
}

func (s *Session) keepHeld(r *velerov1.Restore, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.heldBack[r.UID] = append(s.heldBack[r.UID], err)
}

// takeHeld gives what hasn't been reported yet of the Restore's pods; nil if there is nothing.
func (s *Session) takeHeld(r *velerov1.Restore) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	err := errors.Join(s.heldBack[r.UID]...)
	delete(s.heldBack, r.UID)

	return err
}
