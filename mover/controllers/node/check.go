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
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
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
	// claim is the UID of the volume's claim, if there is one.
	claim types.UID
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
	v, err := n.checkBackupOwner(ctx, job)
	if err != nil || !v.ok() {
		return v, err
	}

	v, err = n.checkRepository(ctx, job.Spec.Repository, job.Spec.Volume.Namespace)
	if err != nil || !v.ok() {
		return v, err
	}

	var (
		pod corev1.Pod
		ref = readThrough(job)
	)

	if ref.Pod.Name == "" {
		return verdict{waiting: &state.Finding{Reason: state.ReasonNotRouted, Message: "the controller has not chosen a pod yet (status.pod)"}}, nil
	}

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

	if f := forged(&pod, job.Name); f != nil {
		return verdict{permanent: f}, nil
	}

	if target.Waits(&pod) {
		return reject(state.ReasonRestoreNotDone,
			"pod %s/%s waits for a restore to fill its volumes; back it up again when it runs", pod.Namespace, pod.Name), nil
	}

	if v, err := n.checkFilled(ctx, job); err != nil || !v.ok() {
		return v, err
	}

	if job.Status.Pod != nil {
		ref = n.inPod(&pod, ref)
	}

	return n.checkVolume(ctx, &pod, wanted{VolumeReference: ref, field: "spec.volume", remedy: "back the pod up again"})
}

// forged finds a pod that has the name of the job's staging pod and is none.
func forged(pod *corev1.Pod, job string) *state.Finding {
	if pod.Name != contract.StagingPodName(job) || target.StagedFor(pod) == job {
		return nil
	}

	d := state.StagingNameTaken(pod.Namespace + "/" + pod.Name)

	return &state.Finding{Reason: d.Reason, Message: d.Message}
}

// wanted is the volume that a job names, in a field of its spec, and what helps if the live one is another.
type wanted struct {
	v1alpha1.VolumeReference

	field, remedy string
}

// differs rejects a job whose field says something else than a live object.
func (w wanted) differs(field, format string, args ...any) verdict {
	return reject(state.ReasonVolumeMismatch, "%s (%s.%s); %s", fmt.Sprintf(format, args...), w.field, field, w.remedy)
}

// checkBackupOwner looks whether the Backup has a use for the job's snapshot. It has one, too, once it has ended with
// records in it: Velero may have lost the operation that it was to wait for.
func (n *Node) checkBackupOwner(ctx context.Context, job *v1alpha1.VolumeBackup) (verdict, error) {
	b, owner := &velerov1.Backup{}, job.Spec.Backup

	found, err := n.get(ctx, n.Namespace, owner.Name, b)
	if err != nil {
		return verdict{}, err
	}

	if !found {
		b = nil
	}

	switch target.BackupOwner(b, job) {
	case state.OwnerGone:
		return reject(state.ReasonOwnerGone, "Backup %s of UID %s (spec.backup) does not exist; make one (velero backup create), and it makes its jobs", owner.Name, owner.UID), nil
	case state.OwnerWaiting, state.OwnerDone, state.OwnerCompleted:
		return verdict{}, nil
	case state.OwnerFailed:
		return reject(state.ReasonOwnerFailed, "Backup %s has failed: %s", owner.Name, b.Status.FailureReason), nil
	case state.OwnerUnknown, state.OwnerMakingObjects, state.OwnerClosed, state.OwnerDeleting:
	}

	if b.Status.Phase == velerov1.BackupPhaseInProgress {
		return verdict{}, nil
	}

	return reject(state.ReasonOwnerNotRunning, "Backup %s is in phase %q (status.phase) and takes no volumes in it; make another one (velero backup create)", owner.Name, b.Status.Phase), nil
}

// checkRepository looks whether the job's repository is the one of its location, and of the namespace that the volume is in.
func (n *Node) checkRepository(ctx context.Context, ref v1alpha1.RepositoryReference, namespace string) (verdict, error) {
	if ref.Namespace != namespace {
		return reject(state.ReasonRepositoryMismatch,
			"the repository is of namespace %q (spec.repository.namespace), and the volume is in %q (spec.volume.namespace); back the volume up again", ref.Namespace, namespace), nil
	}

	var location velerov1.BackupStorageLocation

	found, err := n.get(ctx, n.Namespace, ref.BackupStorageLocation, &location)
	if err != nil {
		return verdict{}, err
	}

	if !found {
		return reject(state.ReasonLocationNotFound, "BackupStorageLocation %s (spec.repository.backupStorageLocation) does not exist; see which there are (kubectl -n %s get backupstoragelocations)",
			ref.BackupStorageLocation, n.Namespace), nil
	}

	var (
		repo v1alpha1.Repository
		name = jobs.RepositoryName(ref.BackupStorageLocation, ref.Namespace)
	)

	found, err = n.get(ctx, n.Namespace, name, &repo)
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
		return say(state.ReasonPodReplaced, "has UID %s (metadata.uid), and the job names %s (spec.volume.pod.uid): it was replaced; back it up again", pod.UID, ref.Pod.UID)
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
func (n *Node) checkVolume(ctx context.Context, pod *corev1.Pod, w wanted) (verdict, error) {
	vol := target.Volume(pod, w.Name)
	if vol == nil {
		return reject(state.ReasonVolumeNotFound, "pod %s/%s has no volume %q (spec.volumes), and the job names it (%s.name); %s", pod.Namespace, pod.Name, w.Name, w.field, w.remedy), nil
	}

	out := Volume{PodUID: pod.UID, Name: vol.Name, Kind: w.Kind}

	if w.Kind != v1alpha1.VolumePersistentVolumeClaim {
		return checkInline(pod, vol, w, out), nil
	}

	if w.Claim == nil {
		return w.differs("claim", "volume %q of pod %s/%s is said to be of a claim, and the job names none", w.Name, pod.Namespace, pod.Name), nil
	}

	if name := v1alpha1.ClaimName(pod, vol); name != w.Claim.Name {
		return w.differs("claim.name", "volume %q of pod %s/%s is of the claim %q, and the job names %q", w.Name, pod.Namespace, pod.Name, name, w.Claim.Name), nil
	}

	return n.checkClaim(ctx, w, out)
}

// checkInline looks whether a volume without a claim is of the kind that the job names.
func checkInline(pod *corev1.Pod, vol *corev1.Volume, w wanted, out Volume) verdict {
	is := false

	switch w.Kind {
	case v1alpha1.VolumeEmptyDir:
		is = vol.EmptyDir != nil
		out.MustBeMounted = is && vol.EmptyDir.Medium != corev1.StorageMediumDefault
	case v1alpha1.VolumeNFS:
		is, out.MustBeMounted = vol.NFS != nil, true
	case v1alpha1.VolumeCSI:
		is, out.MustBeMounted = vol.CSI != nil, true
	case v1alpha1.VolumeHostPath:
		if is = vol.HostPath != nil; is {
			out.HostPath = vol.HostPath.Path
		}
	case v1alpha1.VolumePersistentVolumeClaim:
	}

	if !is {
		return w.differs("kind", "volume %q of pod %s/%s is none of the kind %s, and the job says it is", w.Name, pod.Namespace, pod.Name, w.Kind)
	}

	return verdict{volume: out}
}

func (n *Node) checkClaim(ctx context.Context, w wanted, out Volume) (verdict, error) {
	var (
		claim corev1.PersistentVolumeClaim
		ref   = w.Claim
	)

	found, err := n.get(ctx, w.Namespace, ref.Name, &claim)
	if err != nil {
		return verdict{}, err
	}

	name := w.Namespace + "/" + ref.Name

	switch {
	case !found:
		return w.differs("claim.name", "PersistentVolumeClaim %s does not exist", name), nil
	case ref.UID != "" && claim.UID != ref.UID:
		return w.differs("claim.uid", "PersistentVolumeClaim %s has UID %s (metadata.uid), and the job names %s: it was replaced", name, claim.UID, ref.UID), nil
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		return reject(state.ReasonVolumeUnsupported, "PersistentVolumeClaim %s is a raw block device (spec.volumeMode), which holds no files; use snapshots for it", name), nil
	case ref.PersistentVolume != "" && claim.Spec.VolumeName != ref.PersistentVolume:
		return w.differs("claim.persistentVolume", "PersistentVolumeClaim %s is bound to %q (spec.volumeName), and the job names %q", name, claim.Spec.VolumeName, ref.PersistentVolume), nil
	case claim.Spec.VolumeName == "":
		return verdict{waiting: &state.Finding{Reason: state.ReasonVolumeNotMounted, Message: fmt.Sprintf("PersistentVolumeClaim %s is not bound yet", name)}}, nil
	}

	return n.checkPersistentVolume(ctx, &claim, w, out)
}

func (n *Node) checkPersistentVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim, w wanted, out Volume) (verdict, error) {
	var pv corev1.PersistentVolume

	found, err := n.get(ctx, "", claim.Spec.VolumeName, &pv)
	if err != nil {
		return verdict{}, err
	}

	name := claim.Spec.VolumeName

	switch {
	case !found:
		return reject(state.ReasonVolumeMismatch, "PersistentVolume %s of PersistentVolumeClaim %s/%s (spec.volumeName) does not exist: the volume is lost; make the claim anew",
			name, claim.Namespace, claim.Name), nil
	case w.Claim.PersistentVolumeUID != "" && pv.UID != w.Claim.PersistentVolumeUID:
		return w.differs("claim.persistentVolumeUID", "PersistentVolume %s has UID %s (metadata.uid), and the job names %s: it was replaced", name, pv.UID, w.Claim.PersistentVolumeUID), nil
	case pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID:
		return reject(state.ReasonVolumeMismatch, "PersistentVolume %s (spec.claimRef) is not bound to PersistentVolumeClaim %s/%s of UID %s; %s", name, claim.Namespace, claim.Name, claim.UID, w.remedy), nil
	}

	out.PersistentVolume, out.MustBeMounted = pv.Name, true
	if h := pv.Spec.HostPath; h != nil {
		out.HostPath, out.MustBeMounted = h.Path, false
	}

	return verdict{volume: out, claim: claim.UID}, nil
}

// checkRestore looks at the owner, at the gates of all pods that mount the volume, and at the volume.
func (n *Node) checkRestore(ctx context.Context, job *v1alpha1.VolumeRestore) (verdict, error) {
	v, err := n.checkRestoreOwner(ctx, job.Spec.Restore)
	if err != nil || !v.ok() {
		return v, err
	}

	ref := job.Spec.Target

	pods, err := n.restored(ctx, job, podlist.Age{})
	if err != nil {
		return verdict{}, err
	}

	// Somebody who came before the work began is found here; later, spoiled does.
	v.permanent, v.waiting = state.Recheck(job, target.Pods(job, pods), n.Name)
	if !v.ok() {
		return v, nil
	}

	for i := range pods {
		if pod := &pods[i]; pod.UID == job.Status.Pod.UID {
			return n.checkVolume(ctx, pod, wanted{VolumeReference: n.inPod(pod, sameClaim(job)), field: "spec.target", remedy: "restore again"})
		}
	}

	return reject(state.ReasonPodNotFound, "pod %s/%s is gone", ref.Namespace, job.Status.Pod.Name), nil
}

// restored reads the pods that may mount the restore's volume: one, or for a claim all of its namespace.
func (n *Node) restored(ctx context.Context, job *v1alpha1.VolumeRestore, age podlist.Age) ([]corev1.Pod, error) {
	ref := job.Spec.Target

	if ref.Kind == v1alpha1.VolumePersistentVolumeClaim {
		pods, _, err := n.Pods.In(ctx, ref.Namespace, age)

		return pods, err
	}

	var pod corev1.Pod

	found, err := n.get(ctx, ref.Namespace, ref.Pod.Name, &pod)
	if err != nil || !found {
		return nil, err
	}

	return []corev1.Pod{pod}, nil
}

// sameClaim returns the target with the UID of its claim, once that is known: a
// claim that is made anew while its restore is under way is another one.
func sameClaim(job *v1alpha1.VolumeRestore) v1alpha1.VolumeReference {
	ref := *job.Spec.Target.DeepCopy()
	if ref.Claim != nil && job.Status.ClaimUID != "" {
		ref.Claim.UID = job.Status.ClaimUID
	}

	return ref
}

// spoiled looks at all pods that mount the volume of a restore which is under way.
func (n *Node) spoiled(ctx context.Context, job *v1alpha1.VolumeRestore, age podlist.Age) (*state.Finding, error) {
	pods, err := n.restored(ctx, job, age)
	if err != nil {
		return nil, err
	}

	return state.Spoiled(job, target.Pods(job, pods)), nil
}

// inPod returns the reference with the volume's name in the chosen pod: pods that
// share a claim may call it differently.
func (n *Node) inPod(pod *corev1.Pod, ref v1alpha1.VolumeReference) v1alpha1.VolumeReference {
	if ref.Claim == nil {
		return ref
	}

	for i := range pod.Spec.Volumes {
		if v1alpha1.ClaimName(pod, &pod.Spec.Volumes[i]) == ref.Claim.Name {
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
		return reject(state.ReasonOwnerGone, "Restore %s of UID %s (spec.restore) does not exist; make one (velero restore create), and it makes its jobs", owner.Name, owner.UID), nil
	case r.Status.Phase == velerov1.RestorePhaseFailed:
		return reject(state.ReasonOwnerFailed, "Restore %s has failed: %s", owner.Name, r.Status.FailureReason), nil
	default:
		return verdict{}, nil
	}
}
