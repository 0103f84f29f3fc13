package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// Sweep deletes the staging pods whose jobs have ended or are gone: those that a
// controller left behind which ended in between.
func (c *Cluster) Sweep(ctx context.Context) error {
	pods, err := c.stagingPods(ctx)
	if err != nil {
		return err
	}

	var failures []error

	for i := range pods {
		pod := &pods[i]
		name := pod.Labels[contract.LabelStaging]

		if !pod.DeletionTimestamp.IsZero() {
			continue
		}

		needed, err := c.needed(ctx, name, pod)
		if err == nil && !needed {
			err = c.deletePod(ctx, pod)
		}

		failures = append(failures, err)
	}

	return errors.Join(failures...)
}

// needed reports whether the pod's job is there and has not ended.
func (c *Cluster) needed(ctx context.Context, name string, pod *corev1.Pod) (bool, error) {
	var job client.Object = &v1alpha1.VolumeBackup{}
	if strings.HasPrefix(name, jobs.RestorePrefix) {
		job = &v1alpha1.VolumeRestore{}
	}

	err := c.Direct.Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: name}, job)
	if apierrors.IsNotFound(err) {
		return false, nil
	}

	if err != nil {
		return false, fmt.Errorf("read the job of staging pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	j := c.jobOf(job)

	return !j.status.Phase.Terminal() && j.volume.Namespace == pod.Namespace, nil
}

// stagingPods lists what bears the names and labels of this install's staging pods.
func (c *Cluster) stagingPods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList

	err := c.Staging.List(ctx, &list, client.HasLabels{contract.LabelStaging}, client.MatchingLabels{contract.LabelInstall: jobs.LabelValue(c.Namespace)})
	if err != nil {
		return nil, fmt.Errorf("list staging pods: %w", err)
	}

	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.Name != contract.StagingPodName(p.Labels[contract.LabelStaging]) }), nil
}

// crowded keeps a job waiting while as many others have staging pods as may be: each
// has a volume attached to a node, which can take so many only. Whoever makes pods of such names
// keeps nobody waiting, for only those of live jobs count. All of it is looked up in caches, which may lag by a pod or
// two, for each of hundreds of jobs that wait looks every few seconds.
func (c *Cluster) crowded(ctx context.Context, j routable) (*state.Decision, error) {
	pods, err := c.stagingPods(ctx)
	if err != nil || len(pods) < c.Bounds.StagingPods {
		return nil, err
	}

	var (
		backups  v1alpha1.VolumeBackupList
		restores v1alpha1.VolumeRestoreList
		live     = map[types.NamespacedName]bool{}
	)

	if err := errors.Join(c.listHere(ctx, &backups), c.listHere(ctx, &restores)); err != nil {
		return nil, err
	}

	keep := func(o client.Object) {
		other := c.jobOf(o)
		live[types.NamespacedName{Namespace: other.volume.Namespace, Name: o.GetName()}] = !other.status.Phase.Terminal()
	}

	for i := range backups.Items {
		keep(&backups.Items[i])
	}

	for i := range restores.Items {
		keep(&restores.Items[i])
	}

	there := 0

	for i := range pods {
		if live[types.NamespacedName{Namespace: pods[i].Namespace, Name: pods[i].Labels[contract.LabelStaging]}] {
			there++
		}
	}

	if there < c.Bounds.StagingPods {
		return nil, nil
	}

	d := state.StagingCrowded(*j.status, there, c.Bounds)

	return &d, nil
}
