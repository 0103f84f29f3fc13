package restore

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
)

// AdoptAction lets a Job adopt its pods that wait for their data. Velero restores the pods first, and takes the label
// with the Job's UID off the Job but not off its pods (velero v1.18.3 pkg/restore/actions/job_action.go): the Job would
// not know them and would make others, without a gate, on empty volumes.
type AdoptAction struct{ action }

// NewAdoptAction returns the action for Jobs.
func NewAdoptAction(log logrus.FieldLogger, s *Session) *AdoptAction {
	return &AdoptAction{action{session: s, log: log, name: "estiba.dev/restore-batch-job", resources: []string{"jobs.batch"}}}
}

// Execute restores the selector by which the Job found its pods, if one of them waits for this restore. It
// returns an error, and Velero doesn't restore the Job, where that can't be seen.
func (a *AdoptAction) Execute(in *velero.RestoreItemActionExecuteInput) (*velero.RestoreItemActionExecuteOutput, error) {
	out := velero.NewRestoreItemActionExecuteOutput(in.Item)
	if !withData(in.Restore) {
		return out, nil
	}

	var original batchv1.Job
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(in.ItemFromBackup.UnstructuredContent(), &original); err != nil {
		return nil, fmt.Errorf("read the Job: %w", err)
	}

	waiting, err := a.session.waiting(&original, in.Restore)
	if err != nil {
		return nil, fmt.Errorf("job %s/%s is not restored, for it can't be seen whether a pod of it waits for its data, beside which it would start another one: %w; restore it again",
			original.Namespace, original.Name, err)
	}

	if waiting == "" {
		return out, nil
	}

	item := &unstructured.Unstructured{Object: in.Item.UnstructuredContent()}
	if err := adopting(item, &original); err != nil {
		return nil, err
	}

	log := a.log.WithField("job", original.Namespace+"/"+original.Name)
	log.Infof("the Job gets its selector back, so that it adopts pod %s, which waits for its data, and starts no other one beside it", waiting)

	if limit := original.Spec.ActiveDeadlineSeconds; limit != nil {
		log.Warnf("the Job's deadline of %d s (spec.activeDeadlineSeconds) counts the time in which its pod waits for the data, too", *limit)
	}

	return velero.NewRestoreItemActionExecuteOutput(item), nil
}

// waiting returns the name of a pod of the Job that waits for the restore, or is held back by it; empty if none does.
func (s *Session) waiting(job *batchv1.Job, r *velerov1.Restore) (string, error) {
	if job.Spec.Selector == nil {
		return "", nil
	}

	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err != nil {
		return "", fmt.Errorf("read spec.selector: %w", err)
	}

	c, err := s.connect()
	if err != nil {
		return "", err
	}

	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	var (
		pods      corev1.PodList
		namespace = mapped(job.Namespace, r)
	)

	if err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return "", fmt.Errorf("list the Job's pods in namespace %s: %w", namespace, err)
	}

	for i := range pods.Items {
		pod := &pods.Items[i]
		if metav1.GetControllerOf(pod) == nil && pod.DeletionTimestamp.IsZero() && stands(pod, r) {
			return pod.Name, nil
		}
	}

	return "", nil
}

// stands reports whether the pod waits for the restore, or is held back by it.
func stands(pod *corev1.Pod, r *velerov1.Restore) bool {
	if pod.Annotations[contract.AnnotationHeld] != "" {
		return true
	}

	record, err := contract.DecodeGateRecord(pod.Annotations[contract.AnnotationRestore])

	return err == nil && record.Restore.UID == string(r.UID)
}

// adopting sets on the Job the selector of the original, and its template the labels that go with it. The Job's name is
// made part of the selector: should Velero alone restore a backup of it once, it takes the UID out again, and a
// selector that is empty would select all pods of the namespace.
func adopting(item *unstructured.Unstructured, original *batchv1.Job) error {
	selector, labels := original.Spec.Selector.DeepCopy(), map[string]string{}

	for key, value := range original.Spec.Template.Labels {
		labels[key] = value
	}

	if labels[batchv1.JobNameLabel] == original.Name {
		metav1.AddLabelToSelector(selector, batchv1.JobNameLabel, original.Name)
	}

	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(selector)
	if err != nil {
		return fmt.Errorf("put the selector of Job %s back: %w", original.Name, err)
	}

	for _, set := range []error{
		unstructured.SetNestedMap(item.Object, content, "spec", "selector"),
		unstructured.SetNestedStringMap(item.Object, labels, "spec", "template", "metadata", "labels"),
		unstructured.SetNestedField(item.Object, true, "spec", "manualSelector"),
	} {
		if set != nil {
			return fmt.Errorf("put the selector of Job %s back: %w", original.Name, set)
		}
	}

	return nil
}
