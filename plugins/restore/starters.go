package restore

import (
	"context"
	"fmt"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
)

// starters are the pods of a namespace that wait at no gate, by the claims that they mount.
type starters struct {
	at      time.Time
	byClaim map[string]string
}

// startsNothing returns an error where a pod that is there already would start on the claim as soon as that is made,
// and empty: it waits for its claim alone. It was made before the claim could say that it isn't filled, so that
// admission has let it pass. A claim that is there already is the controller's to look at.
func (s *Session) startsNothing(item *unstructured.Unstructured, r *velerov1.Restore) error {
	live, err := s.liveClaim(item, r)
	if err != nil || live != nil {
		return err
	}

	pods, err := s.startersIn(mapped(item.GetNamespace(), r))
	if err != nil {
		return err
	}

	if pod := pods[item.GetName()]; pod != "" {
		return fmt.Errorf("%s waits for the claim without a gate, and would start on the empty volume as soon as the claim is made; delete what makes it, and restore again", pod)
	}

	return nil
}

// startersIn lists the pods of a namespace once for all of its claims, which Velero restores one after the other.
func (s *Session) startersIn(namespace string) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if known, ok := s.starters[namespace]; ok && s.clock.Since(known.at) < memory {
		return known.byClaim, nil
	}

	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the pods of namespace %s, one of which may wait for the claim: %w", namespace, err)
	}

	found := starters{at: s.clock.Now(), byClaim: map[string]string{}}

	for i := range pods.Items {
		pod := &pods.Items[i]
		if !starts(pod) {
			continue
		}

		for _, v := range pod.Spec.Volumes {
			if v.PersistentVolumeClaim != nil {
				found.byClaim[v.PersistentVolumeClaim.ClaimName] = titleOf(pod)
			}
		}
	}

	s.starters[namespace] = found

	return found.byClaim, nil
}

// starts reports whether nothing of ours keeps the pod from running once its volumes are there.
func starts(pod *corev1.Pod) bool {
	if !pod.DeletionTimestamp.IsZero() || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}

	for _, c := range pod.Spec.InitContainers {
		if c.Name == contract.GateContainer {
			return false
		}
	}

	for _, g := range pod.Spec.SchedulingGates {
		if g.Name == contract.SchedulingGate {
			return false
		}
	}

	// A staging pod does nothing.
	return pod.Labels[contract.LabelStaging] == ""
}

// titleOf names the pod, and what has made it.
func titleOf(pod *corev1.Pod) string {
	if maker := metav1.GetControllerOf(pod); maker != nil {
		return fmt.Sprintf("pod %s of %s %s", pod.Name, maker.Kind, maker.Name)
	}

	return "pod " + pod.Name
}
