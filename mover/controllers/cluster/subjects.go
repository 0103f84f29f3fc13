package cluster

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

// maxSubjects bounds how many pods are told of one finding.
const maxSubjects = 10

// tellSubjects records an event of a job's end on its pods and its claim, where people look
// first: on a node without a daemon nobody else does. An event needs the UID of
// its object, or kubectl describe does not show it.
func (c *Cluster) tellSubjects(ctx context.Context, job client.Object, dec state.Decision, pods []state.TargetPod) {
	var (
		kind, namespace string
		claim           *v1alpha1.ClaimReference
	)

	switch j := job.(type) {
	case *v1alpha1.VolumeBackup:
		kind, namespace, claim = "VolumeBackup", j.Spec.Volume.Namespace, j.Spec.Volume.Claim
		pods = append(pods, state.TargetPod{Name: j.Spec.Volume.Pod.Name, UID: string(j.Spec.Volume.Pod.UID)})
	case *v1alpha1.VolumeRestore:
		kind, namespace, claim = "VolumeRestore", j.Spec.Target.Namespace, j.Spec.Target.Claim.DeepCopy()
		if claim != nil {
			claim.UID = c.claimUID(ctx, j)
		}

		if p := j.Status.Pod; p != nil && len(pods) == 0 {
			pods = append(pods, state.TargetPod{Name: p.Name, UID: string(p.UID)})
		}
	default:
		return
	}

	about := fmt.Sprintf("%s %s: %s", kind, job.GetName(), dec.Bounded().Message)
	tell := func(kind, name string, uid types.UID) {
		if uid != "" {
			c.Events.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: kind, Namespace: namespace, Name: name, UID: uid},
				corev1.EventTypeWarning, dec.Reason, about)
		}
	}

	for _, p := range pods[:min(len(pods), maxSubjects)] {
		tell("Pod", p.Name, types.UID(p.UID))
	}

	if claim != nil {
		tell("PersistentVolumeClaim", claim.Name, claim.UID)
	}
}

// claimUID returns the UID of a restore's claim; none where it can't be read, for an event is worth no failure.
func (c *Cluster) claimUID(ctx context.Context, job *v1alpha1.VolumeRestore) types.UID {
	if job.Status.ClaimUID != "" {
		return job.Status.ClaimUID
	}

	var claim corev1.PersistentVolumeClaim

	if c.Direct.Get(ctx, types.NamespacedName{Namespace: job.Spec.Target.Namespace, Name: job.Spec.Target.Claim.Name}, &claim) != nil {
		return ""
	}

	return claim.UID
}
