package backup

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
)

// pageOfPods is how many pods are asked for in one call: whole ones are there for a page only.
const pageOfPods = 500

// podsIn lists the pods of a namespace, of which it keeps what decisions are made of. Velero takes one namespace after
// the other, and its server shares its memory with this process.
func (s *Session) podsIn(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if r, ok := s.pods[namespace]; ok && s.clock.Since(r.at) < memory {
		return r.value, nil
	}

	pods, err := s.listPods(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("list pods of namespace %s: %w", namespace, err)
	}

	now := s.clock.Now()
	dropStale(s.pods, now)
	s.pods[namespace] = remembered[[]corev1.Pod]{at: now, value: pods}

	return pods, nil
}

func (s *Session) listPods(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	var pods []corev1.Pod

	for limit, next := int64(pageOfPods), ""; ; {
		var list corev1.PodList

		err := c.List(ctx, &list, client.InNamespace(namespace), client.Limit(limit), client.Continue(next))
		if apierrors.IsResourceExpired(err) && next != "" {
			// The list was too old to be gone on with: all at once, then.
			pods, limit, next = nil, 0, ""
			continue
		}

		if err != nil {
			return nil, err
		}

		for i := range list.Items {
			// A staging pod of another backup may be gone in a moment, and carries nothing.
			if job := list.Items[i].Labels[contract.LabelStaging]; job == "" || list.Items[i].Name != contract.StagingPodName(job) {
				pods = append(pods, trimmed(&list.Items[i]))
			}
		}

		if next = list.Continue; next == "" {
			return pods, nil
		}
	}
}

// trimmed returns the pod without what is large and no decision is made of.
func trimmed(pod *corev1.Pod) corev1.Pod {
	pod.ManagedFields = nil
	delete(pod.Annotations, corev1.LastAppliedConfigAnnotation)

	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i, c := range containers {
			containers[i] = corev1.Container{
				Name: c.Name, Image: c.Image, RestartPolicy: c.RestartPolicy, VolumeMounts: c.VolumeMounts, VolumeDevices: c.VolumeDevices,
			}
		}
	}

	pod.Spec.EphemeralContainers = nil
	pod.Status = corev1.PodStatus{
		Phase: pod.Status.Phase, Reason: pod.Status.Reason, Conditions: pod.Status.Conditions, StartTime: pod.Status.StartTime,
		InitContainerStatuses: trimmedStatuses(pod.Status.InitContainerStatuses),
	}

	return *pod
}

func trimmedStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	for i, c := range statuses {
		statuses[i] = corev1.ContainerStatus{Name: c.Name, State: c.State, Ready: c.Ready, Started: c.Started}
	}

	return statuses
}

// dropStale forgets what no further call is served from.
func dropStale[K comparable, V any](known map[K]remembered[V], now time.Time) {
	for key, r := range known {
		if now.Sub(r.at) >= memory {
			delete(known, key)
		}
	}
}

// trimmedVolume returns the PersistentVolume without what is large and no decision is made of.
func trimmedVolume(pv *corev1.PersistentVolume) *corev1.PersistentVolume {
	pv.ManagedFields = nil
	delete(pv.Annotations, corev1.LastAppliedConfigAnnotation)

	return pv
}
