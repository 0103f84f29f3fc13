package node

import (
	"context"
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// verdict is what a look at the live objects behind a job gave. If neither
// finding is set, volume is what to open.
type verdict struct {
	permanent *state.Finding
	waiting   *state.Finding
	volume    Volume
}

func reject(reason, format string, args ...any) verdict {
	return verdict{permanent: &state.Finding{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

func (v verdict) ok() bool { return v.permanent == nil && v.waiting == nil }

// get reads an object from the API server; found is false if there is none.
func (n *Node) get(ctx context.Context, namespace, name string, into client.Object) (found bool, err error) {
	err = n.Direct.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into)
	if apierrors.IsNotFound(err) {
		return false, nil
	}

	if err != nil {
		return false, fmt.Errorf("read %T %s/%s: %w", into, namespace, name, err)
	}

	return true, nil
}

// checkBackup looks at everything that the job names; nothing it says is taken on trust.
func (n *Node) checkBackup(ctx context.Context, job *v1alpha1.VolumeBackup) (verdict, error) {
	v, err := n.checkBackupOwner(ctx, job.Spec.Backup)
	if err != nil || !v.ok() {
		return v, err
	}

	v, err = n.checkRepository(ctx, job.Spec.Repository)
	if err != nil || !v.ok() {
		return v, err
	}

	var (
		pod corev1.Pod
		ref = job.Spec.Volume
	)

	found, err := n.get(ctx, ref.Namespace, ref.Pod.Name, &pod)
	if err != nil {
		return verdict{}, err
	}

	if !found {
		return reject(state.ReasonPodNotFound, "pod %s/%s (spec.volume.pod) does not exist any more; back it up again", ref.Namespace, ref.Pod.Name), nil
	}

	if f := n.checkPod(&pod, ref); f != nil {
		return verdict{permanent: f}, nil
	}

	return n.checkVolume(ctx, &pod, ref)
}

func (n *Node) checkBackupOwner(ctx context.Context, owner v1alpha1.OwnerReference) (verdict, error) {
	var b velerov1.Backup

	found, err := n.get(ctx, n.Namespace, owner.Name, &b)
	if err != nil {
		return verdict{}, err
	}

	if !found || b.UID != owner.UID {
		return reject(state.ReasonOwnerGone, "Backup %s of UID %s (spec.backup) does not exist", owner.Name, owner.UID), nil
	}

	switch b.Status.Phase {
	case velerov1.BackupPhaseInProgress, velerov1.BackupPhaseWaitingForPluginOperations, velerov1.BackupPhaseWaitingForPluginOperationsPartiallyFailed:
		return verdict{}, nil
	case velerov1.BackupPhaseFailed:
		return reject(state.ReasonOwnerFailed, "Backup %s has failed: %s", owner.Name, b.Status.FailureReason), nil
	default:
		return reject(state.ReasonOwnerNotRunning, "Backup %s is in phase %q and takes no volumes in it", owner.Name, b.Status.Phase), nil
	}
}

func (n *Node) checkRepository(ctx context.Context, ref v1alpha1.RepositoryReference) (verdict, error) {
	var (
		repo v1alpha1.Repository
		name = jobs.RepositoryName(ref.BackupStorageLocation, ref.Namespace)
	)

	found, err := n.get(ctx, n.Namespace, name, &repo)
	if err != nil {
		return verdict{}, err
	}

	fits := found && repo.Spec.BackupStorageLocation == ref.BackupStorageLocation && repo.Spec.Namespace == ref.Namespace && repo.Status.ID == ref.ID
	if !fits {
		return reject(state.ReasonRepositoryMismatch,
			"Repository %s of location %q and namespace %q has the ID %q, and the job names %q (spec.repository.id); back the volume up again",
			name, ref.BackupStorageLocation, ref.Namespace, repo.Status.ID, ref.ID), nil
	}

	return verdict{}, nil
}

func (n *Node) checkPod(pod *corev1.Pod, ref v1alpha1.VolumeReference) *state.Finding {
	say := func(reason, format string, args ...any) *state.Finding {
		return &state.Finding{Reason: reason, Message: fmt.Sprintf("pod %s/%s ", pod.Namespace, pod.Name) + fmt.Sprintf(format, args...)}
	}

	switch {
	case pod.UID != ref.Pod.UID:
		return say(state.ReasonPodReplaced, "has UID %s (metadata.uid), and the job names %s: it was replaced; back it up again", pod.UID, ref.Pod.UID)
	case pod.Spec.NodeName != n.Name:
		return say(state.ReasonPodMoved, "is on node %q (spec.nodeName), and the job was given to node %q; back it up again", pod.Spec.NodeName, n.Name)
	case !pod.DeletionTimestamp.IsZero():
		return say(state.ReasonPodDeleted, "is being deleted (metadata.deletionTimestamp); back its successor up")
	case target.Finished(pod):
		return say(state.ReasonPodNotRunning, "has ended with phase %s (status.phase), so that its volumes are not mounted", pod.Status.Phase)
	default:
		return nil
	}
}

// checkVolume finds the volume in the pod and, for a claim, follows it to the PersistentVolume and back.
func (n *Node) checkVolume(ctx context.Context, pod *corev1.Pod, ref v1alpha1.VolumeReference) (verdict, error) {
	vol := target.Volume(pod, ref.Name)
	if vol == nil {
		return reject(state.ReasonVolumeNotFound, "pod %s/%s has no volume %q (spec.volumes)", pod.Namespace, pod.Name, ref.Name), nil
	}

	out := Volume{PodUID: pod.UID, Name: vol.Name}

	if ref.Kind == v1alpha1.VolumeEmptyDir {
		if vol.EmptyDir == nil {
			return reject(state.ReasonVolumeMismatch, "volume %q of pod %s/%s is no emptyDir, and the job says it is (spec.volume.kind)", ref.Name, pod.Namespace, pod.Name), nil
		}

		out.MustBeMounted = vol.EmptyDir.Medium != corev1.StorageMediumDefault

		return verdict{volume: out}, nil
	}

	if name := target.ClaimName(pod, vol); ref.Claim == nil || name != ref.Claim.Name {
		return reject(state.ReasonVolumeMismatch, "volume %q of pod %s/%s is of the claim %q, and the job names another one (spec.volume.claim.name)", ref.Name, pod.Namespace, pod.Name, name), nil
	}

	return n.checkClaim(ctx, pod.Namespace, ref.Claim, out)
}

func (n *Node) checkClaim(ctx context.Context, namespace string, ref *v1alpha1.ClaimReference, out Volume) (verdict, error) {
	var claim corev1.PersistentVolumeClaim

	found, err := n.get(ctx, namespace, ref.Name, &claim)
	if err != nil {
		return verdict{}, err
	}

	name := namespace + "/" + ref.Name

	switch {
	case !found:
		return reject(state.ReasonVolumeMismatch, "PersistentVolumeClaim %s does not exist", name), nil
	case ref.UID != "" && claim.UID != ref.UID:
		return reject(state.ReasonVolumeMismatch, "PersistentVolumeClaim %s has UID %s (metadata.uid), and the job names %s: it was replaced", name, claim.UID, ref.UID), nil
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		return reject(state.ReasonVolumeUnsupported, "PersistentVolumeClaim %s is a raw block device (spec.volumeMode), which holds no files; use snapshots for it", name), nil
	case ref.PersistentVolume != "" && claim.Spec.VolumeName != ref.PersistentVolume:
		return reject(state.ReasonVolumeMismatch, "PersistentVolumeClaim %s is bound to %q (spec.volumeName), and the job names %q", name, claim.Spec.VolumeName, ref.PersistentVolume), nil
	case claim.Spec.VolumeName == "":
		return verdict{waiting: &state.Finding{Reason: state.ReasonVolumeNotMounted, Message: fmt.Sprintf("PersistentVolumeClaim %s is not bound yet", name)}}, nil
	}

	return n.checkPersistentVolume(ctx, &claim, ref, out)
}

func (n *Node) checkPersistentVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim, ref *v1alpha1.ClaimReference, out Volume) (verdict, error) {
	var pv corev1.PersistentVolume

	found, err := n.get(ctx, "", claim.Spec.VolumeName, &pv)
	if err != nil {
		return verdict{}, err
	}

	name := claim.Spec.VolumeName

	switch {
	case !found:
		return reject(state.ReasonVolumeMismatch, "PersistentVolume %s does not exist", name), nil
	case ref.PersistentVolumeUID != "" && pv.UID != ref.PersistentVolumeUID:
		return reject(state.ReasonVolumeMismatch, "PersistentVolume %s has UID %s (metadata.uid), and the job names %s: it was replaced", name, pv.UID, ref.PersistentVolumeUID), nil
	case pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID:
		return reject(state.ReasonVolumeMismatch, "PersistentVolume %s (spec.claimRef) is not bound to PersistentVolumeClaim %s/%s of UID %s", name, claim.Namespace, claim.Name, claim.UID), nil
	}

	out.PersistentVolume, out.HostPath, out.MustBeMounted = pv.Name, pv.Spec.HostPath != nil, true

	return verdict{volume: out}, nil
}

// checkRestore looks at the owner, at the gates of all pods that mount the volume, and at the volume.
func (n *Node) checkRestore(ctx context.Context, job *v1alpha1.VolumeRestore) (verdict, error) {
	v, err := n.checkRestoreOwner(ctx, job.Spec.Restore)
	if err != nil || !v.ok() {
		return v, err
	}

	var (
		list corev1.PodList
		ref  = job.Spec.Target
	)

	if err := n.Direct.List(ctx, &list, client.InNamespace(ref.Namespace)); err != nil {
		return verdict{}, fmt.Errorf("list pods of namespace %s: %w", ref.Namespace, err)
	}

	v.permanent, v.waiting = state.Recheck(job, target.Pods(job, list.Items), n.Name)
	if !v.ok() {
		return v, nil
	}

	for i := range list.Items {
		if pod := &list.Items[i]; pod.UID == job.Status.Pod.UID {
			return n.checkVolume(ctx, pod, n.inPod(pod, ref))
		}
	}

	return reject(state.ReasonPodNotFound, "pod %s/%s is gone", ref.Namespace, job.Status.Pod.Name), nil
}

// inPod gives the reference with the volume's name in the chosen pod: pods that
// share a claim may call it differently.
func (n *Node) inPod(pod *corev1.Pod, ref v1alpha1.VolumeReference) v1alpha1.VolumeReference {
	if ref.Claim == nil {
		return ref
	}

	for i := range pod.Spec.Volumes {
		if target.ClaimName(pod, &pod.Spec.Volumes[i]) == ref.Claim.Name {
			ref.Name = pod.Spec.Volumes[i].Name
		}
	}

	return ref
}

func (n *Node) checkRestoreOwner(ctx context.Context, owner v1alpha1.OwnerReference) (verdict, error) {
	var r velerov1.Restore

	found, err := n.get(ctx, n.Namespace, owner.Name, &r)
	if err != nil {
		return verdict{}, err
	}

	switch {
	case !found || r.UID != owner.UID:
		return reject(state.ReasonOwnerGone, "Restore %s of UID %s (spec.restore) does not exist", owner.Name, owner.UID), nil
	case r.Status.Phase == velerov1.RestorePhaseFailed:
		return reject(state.ReasonOwnerFailed, "Restore %s has failed: %s", owner.Name, r.Status.FailureReason), nil
	default:
		return verdict{}, nil
	}
}
