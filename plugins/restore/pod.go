package restore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// PodAction puts the gate into pods whose volumes were moved, asks for the jobs
// that fill them, and reports these.
type PodAction struct{ action }

// NewPodAction returns the action for pods.
func NewPodAction(log logrus.FieldLogger, s *Session) *PodAction {
	return &PodAction{action{session: s, log: log, name: "estiba.dev/restore-pod", resources: []string{"pods"}}}
}

// Execute returns the pod with its gate. Where the data is known to exist and can't
// be asked for, it gives the pod so that it will never be scheduled, and an error
// follows through AreAdditionalItemsReady.
func (a *PodAction) Execute(in *velero.RestoreItemActionExecuteInput) (*velero.RestoreItemActionExecuteOutput, error) {
	item := stripped(in.Item)
	log := a.log.WithField("pod", item.GetNamespace()+"/"+item.GetName())

	record, ok, err := recordOf(log, in)
	if err != nil {
		return a.held(item, in.Restore, err)
	}

	claimed, err := a.session.claimed(item, record, in.Restore)

	switch {
	case err != nil && ok:
		return a.held(item, in.Restore, err)
	case err != nil:
		// Most pods are none of ours, and must not wait for what can't be seen.
		log.Warnf("whether data is restored into claims of the pod can't be seen, and it is not held for that: %v", err)
	}

	out := velero.NewRestoreItemActionExecuteOutput(item)
	if !ok && len(claimed) == 0 {
		return out, nil
	}

	id, err := a.gated(log, item, in, record, claimed)
	if err != nil {
		return a.held(item, in.Restore, err)
	}

	if len(id.Jobs) > 0 {
		out = out.WithOperationID(id.String())
	}

	out.AdditionalItems = warnings(log, item, record)
	out.WaitForAdditionalItems = a.session.wants(in.Restore)

	return out, nil
}

// warnings says which of the pod's volumes come back without their data. Velero
// counts no line of a restore's log, but it warns, by name, of each additional
// item that the backup doesn't hold (velero v1.18.3 pkg/restore/restore.go): so
// they are named as such, by a resource that there is none of.
func warnings(log logrus.FieldLogger, item *unstructured.Unstructured, record contract.PodRecord) []velero.ResourceIdentifier {
	var list []velero.ResourceIdentifier

	for _, name := range slices.Sorted(maps.Keys(record.Unprotected)) {
		log.WithField("volume", name).Warnf("volume %s of pod %s/%s comes back without its data, for that is not in backup %s although it was to be: %s",
			name, item.GetNamespace(), item.GetName(), record.Backup.Name, record.Unprotected[name])

		list = append(list, notInBackup(item, "pod-"+item.GetName()+"-volume-"+name))
	}

	return list
}

// gated puts the gate into the item, if it has volumes to be filled, and gives
// the operation that fills them. The jobs of volumes that its record doesn't name are there already.
func (a *PodAction) gated(
	log logrus.FieldLogger, item *unstructured.Unstructured, in *velero.RestoreItemActionExecuteInput, record contract.PodRecord, claimed map[string]string,
) (operation.ID, error) {
	pod, err := podOf(item)
	if err != nil {
		return operation.ID{}, err
	}

	original, err := podOf(in.ItemFromBackup)
	if err != nil {
		return operation.ID{}, err
	}

	targets := targetsOf(log, pod, record, in.Restore)
	if len(targets)+len(claimed) == 0 {
		return operation.ID{}, nil
	}

	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	creatable(log, item)

	containers, err := a.session.gates(ctx, log, in.Restore, pod, original)
	if err != nil {
		return operation.ID{}, err
	}

	how, err := a.session.admitted(ctx, item, containers, original, in.Restore)
	if err != nil {
		return operation.ID{}, err
	}

	location, err := a.session.location(ctx, log, in.Restore)
	if err != nil {
		return operation.ID{}, err
	}

	byVolume, err := a.session.ensure(ctx, log, in.Restore, targets, location)
	if err != nil {
		return operation.ID{}, err
	}

	for volume, job := range claimed {
		log.Infof("volume %s isn't in the pod's record, and VolumeRestore %s fills its claim: the pod waits for that", volume, job)
		byVolume[volume] = job
		delete(record.Unprotected, volume)
	}

	if err := writable(log, item, byVolume); err != nil {
		return operation.ID{}, err
	}

	if err := inject(item, how, in.Restore, byVolume); err != nil {
		return operation.ID{}, err
	}

	if how.owner != nil {
		log.Infof("the namespace admits no pod without an owner: the pod's is %s %s until its controller adopts it", how.owner.Kind, how.owner.Name)
	}

	names := slices.Sorted(maps.Values(byVolume))

	return operation.ID{Kind: operation.Restore, Jobs: slices.Compact(names)}, nil
}

// recordOf reads the pod's record, if it has one that counts for the restore.
func recordOf(log logrus.FieldLogger, in *velero.RestoreItemActionExecuteInput) (contract.PodRecord, bool, error) {
	text, ok := annotations(in.ItemFromBackup)[contract.AnnotationVolumes]
	if !ok {
		return contract.PodRecord{}, false, nil
	}

	if !withData(in.Restore) {
		log.Info("volumes stay empty: the restore doesn't bring volumes (spec.restorePVs is false)")

		return contract.PodRecord{}, false, nil
	}

	record, err := contract.DecodePodRecord(text)
	if err != nil {
		return contract.PodRecord{}, false, err
	}

	if why := foreign(record.Backup, in.Restore); why != "" {
		log.Warn(why)

		return contract.PodRecord{}, false, nil
	}

	return record, true, nil
}

func podOf(item runtime.Unstructured) (*corev1.Pod, error) {
	pod := new(corev1.Pod)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.UnstructuredContent(), pod); err != nil {
		return nil, fmt.Errorf("read the pod: %w", err)
	}

	return pod, nil
}

// target is one volume to be filled.
type target struct {
	volume contract.Volume
	backup contract.Owner
	where  v1alpha1.VolumeReference
	// original says how the claim's volume was; nil where that isn't known.
	original *contract.PersistentVolume
}

// targetsOf returns the pod's volumes that are to be filled, as they will be in
// the namespace that the pod is restored to.
func targetsOf(log logrus.FieldLogger, pod *corev1.Pod, record contract.PodRecord, r *velerov1.Restore) []target {
	namespace := mapped(pod.Namespace, r)

	var list []target

	for _, name := range slices.Sorted(maps.Keys(record.Volumes)) {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		if i < 0 {
			log.Warnf("volume %s was moved, but the pod to be restored has none of that name; it is left out", name)

			continue
		}

		t := target{volume: record.Volumes[name], backup: record.Backup, where: v1alpha1.VolumeReference{
			Kind: volumeselect.KindOf(&pod.Spec.Volumes[i]), Namespace: namespace, Name: name, Pod: v1alpha1.PodReference{Name: pod.Name},
		}}

		if claim := v1alpha1.ClaimName(pod, &pod.Spec.Volumes[i]); claim != "" {
			t.where.Claim = &v1alpha1.ClaimReference{Name: claim}
		}

		list = append(list, t)
	}

	return list
}

// ensure makes sure of the jobs of all targets and gives their names by volume.
// If one can't be had, those that were made by this call are cancelled: no pod will come for them.
func (s *Session) ensure(ctx context.Context, log logrus.FieldLogger, r *velerov1.Restore, targets []target, location string) (map[string]string, error) {
	j, err := s.connect.Jobs(r.Namespace)
	if err != nil {
		return nil, err
	}

	want, err := s.asked(ctx, log, r, location)
	if err != nil {
		return nil, err
	}

	var made []string

	byVolume := make(map[string]string, len(targets))

	for _, t := range targets {
		job, outcome, err := j.EnsureRestore(ctx, jobs.NewRestore(r.Namespace, t.spec(r, want)))
		if err != nil {
			return nil, errors.Join(remedy(err, r.Namespace), s.cancel(ctx, made, r.Namespace, 0))
		}

		if outcome == jobs.Created {
			made = append(made, job.Name)
		}

		byVolume[t.where.Name] = job.Name

		log.WithFields(logrus.Fields{"job": job.Name, "volume": t.title()}).
			Infof("VolumeRestore %s/%s for volume %s: %s", job.Namespace, job.Name, t.title(), outcome)
	}

	return byVolume, nil
}

func (t target) title() string {
	if t.where.Name == "" && t.where.Claim != nil {
		return t.where.Claim.Name
	}

	return t.where.Name
}

func (t target) spec(r *velerov1.Restore, want asked) v1alpha1.VolumeRestoreSpec {
	spec := v1alpha1.VolumeRestoreSpec{
		Restore: v1alpha1.OwnerReference{Name: r.Name, UID: r.UID},
		Repository: v1alpha1.RepositoryReference{
			BackupStorageLocation: want.location, Namespace: t.volume.Repository.Namespace, ID: t.volume.Repository.ID,
		},
		Snapshot: v1alpha1.SnapshotReference{
			Job:    t.volume.Job,
			Backup: v1alpha1.OwnerReference{Name: t.backup.Name, UID: types.UID(t.backup.UID)},
		},
		Target: t.where,
	}
	if o := t.original; o != nil {
		spec.Original = &v1alpha1.OriginalVolume{ReclaimPolicy: o.ReclaimPolicy, Labels: o.Labels}
	}

	want.add(&spec, t.volume.Source)

	return spec
}

// mapped returns the namespace that what was in the given one is restored to.
func mapped(namespace string, r *velerov1.Restore) string {
	if to := r.Spec.NamespaceMapping[namespace]; to != "" {
		return to
	}

	return namespace
}

func remedy(err error, namespace string) error {
	if errors.Is(err, jobs.ErrNotInstalled) {
		return fmt.Errorf("%w; apply your overlay of Estiba's manifests of the plugin's release to namespace %s "+
			"(README, \"Install it beside your Velero\"): its resource definitions are missing", err, namespace)
	}

	return err
}
