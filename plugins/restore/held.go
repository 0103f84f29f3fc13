package restore

import (
	"errors"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/estiba-dev/estiba/mover/contract"
)

// held returns the pod so that it exists and is never scheduled, and leaves the
// reason on it and for AreAdditionalItemsReady.
func (a *PodAction) held(item *unstructured.Unstructured, r *velerov1.Restore, why error) (*velero.RestoreItemActionExecuteOutput, error) {
	name := item.GetNamespace() + "/" + item.GetName()

	creatable(a.log.WithField("pod", name), item)

	err := holdBack(item, fmt.Sprintf("restore %s: %v; mend that, delete the workload or the namespace, and restore again", r.Name, why))
	if err != nil {
		return nil, fmt.Errorf("pod %s is not restored, for it would start without its data: %w", name, errors.Join(why, err))
	}

	err = fmt.Errorf("pod %s is held back from starting without its data, by its scheduling gate %s: %w; "+
		"mend that, delete the workload or the namespace, and restore again", name, contract.SchedulingGate, why)
	a.session.say(r, err)

	out := velero.NewRestoreItemActionExecuteOutput(item)
	out.WaitForAdditionalItems = true

	return out, nil
}

// holdBack puts the scheduling gate into the pod, and the reason beside it.
func holdBack(item *unstructured.Unstructured, why string) error {
	contract.Strip(item.Object)

	// The API server takes no scheduling gate on a pod that names its node.
	unstructured.RemoveNestedField(item.Object, "spec", "nodeName")

	if err := insert(item, map[string]any{"name": contract.SchedulingGate}, false, "spec", "schedulingGates"); err != nil {
		return err
	}

	contract.Annotate(item.Object, contract.AnnotationHeld, why)

	return nil
}

// say keeps an error about an item that is restored all the same, for take.
func (s *Session) say(r *velerov1.Restore, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.unsaid[r.UID] = append(s.unsaid[r.UID], err)
}

// wants reports whether there is something for take.
func (s *Session) wants(r *velerov1.Restore) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	return len(s.unsaid[r.UID]) > 0
}

// take returns what hasn't been said yet; nil if there is nothing.
func (s *Session) take(r *velerov1.Restore) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	err := errors.Join(s.unsaid[r.UID]...)
	delete(s.unsaid, r.UID)

	return err
}
