package restore

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/contract"
)

const oldUID = "b1b1b1b1-0000-4000-8000-000000000001"

// ofJob are the labels that the API server gives a Job's selector, template and pods.
func ofJob() map[string]string {
	return map[string]string{
		batchv1.ControllerUidLabel: oldUID, "controller-uid": oldUID, batchv1.JobNameLabel: "import", "job-name": "import", "app": "import",
	}
}

func backedUpJob() *batchv1.Job {
	return &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "import", UID: oldUID, Labels: map[string]string{"app": "import"}},
		Spec: batchv1.JobSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: oldUID}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: ofJob()}},
		},
	}
}

// veleros is the Job as Velero's own action leaves it (velero v1.18.3 pkg/restore/actions/job_action.go).
func veleros(original *batchv1.Job) *batchv1.Job {
	job := original.DeepCopy()

	for _, label := range []string{batchv1.ControllerUidLabel, "controller-uid"} {
		delete(job.Spec.Selector.MatchLabels, label)
		delete(job.Spec.Template.Labels, label)
	}

	return job
}

// restoredJob returns the Job as Estiba's action leaves it after Velero's.
func (b *bench) restoredJob(original *batchv1.Job) (*batchv1.Job, error) {
	b.Helper()

	out, err := NewAdoptAction(b.log, b.session).Execute(&velero.RestoreItemActionExecuteInput{
		Item: b.item(veleros(original)), ItemFromBackup: b.item(original), Restore: b.restore,
	})
	if err != nil {
		return nil, err
	}

	job := new(batchv1.Job)
	require.NoError(b, kruntime.DefaultUnstructuredConverter.FromUnstructured(out.UpdatedItem.UnstructuredContent(), job))

	return job, nil
}

func TestAJobAdoptsThePodThatWaitsForItsData(t *testing.T) {
	gate, err := contract.GateRecord{Restore: contract.Owner{Name: "again", UID: "r-1"}}.Encode()
	require.NoError(t, err)

	tests := map[string]struct {
		pod    func(*corev1.Pod)
		job    func(*batchv1.Job)
		change func(*velerov1.Restore)
		adopts bool
		warns  string
	}{
		"it stands at its gate": {adopts: true},
		"it is held back": {adopts: true, pod: func(p *corev1.Pod) {
			p.Annotations = map[string]string{contract.AnnotationHeld: "no image"}
		}},
		"in another namespace": {
			adopts: true, pod: func(p *corev1.Pod) { p.Namespace = "shop2" },
			change: func(r *velerov1.Restore) { r.Spec.NamespaceMapping = map[string]string{"shop": "shop2"} },
		},
		"the Job has a deadline": {adopts: true, job: func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To(int64(90)) }, warns: "90 s"},
		"its pod has no gate":    {pod: func(p *corev1.Pod) { p.Annotations = nil }},
		"it waits for another restore": {pod: func(p *corev1.Pod) {
			p.Annotations[contract.AnnotationRestore] = `{"version":1,"restore":{"uid":"r-0"}}`
		}},
		"it is another Job's": {pod: func(p *corev1.Pod) { p.Labels[batchv1.ControllerUidLabel] = "other" }},
		"it has a Job already": {pod: func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "Job", Controller: ptr.To(true)}}
		}},
		"no volumes are restored": {change: func(r *velerov1.Restore) { r.Spec.RestorePVs = ptr.To(false) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "import-x", Labels: ofJob(), Annotations: map[string]string{contract.AnnotationRestore: gate},
			}}
			original := backedUpJob()

			if tt.pod != nil {
				tt.pod(pod)
			}

			if tt.job != nil {
				tt.job(original)
			}

			if tt.change != nil {
				tt.change(b.restore)
			}

			require.NoError(t, b.client.Create(t.Context(), pod))

			job, err := b.restoredJob(original)
			require.NoError(t, err)
			assert.Equal(t, tt.adopts, ptr.Deref(job.Spec.ManualSelector, false))
			assert.Equal(t, tt.warns != "", said(b, tt.warns, true))

			if !tt.adopts {
				assert.NotContains(t, job.Spec.Template.Labels, batchv1.ControllerUidLabel, "it is as Velero makes it")

				return
			}

			assert.Equal(t, map[string]string{batchv1.ControllerUidLabel: oldUID, batchv1.JobNameLabel: "import"}, job.Spec.Selector.MatchLabels)
			assert.Equal(t, ofJob(), job.Spec.Template.Labels)

			// Velero alone may restore a backup of that once.
			assert.NotEmpty(t, veleros(job).Spec.Selector.MatchLabels, "an empty selector selects all pods")
		})
	}
}

func TestAJobIsNotRestoredBesideAPodThatMayWait(t *testing.T) {
	b := newBench(t)
	b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return errors.New("timed out")
		},
	})

	_, err := b.restoredJob(backedUpJob())
	require.ErrorContains(t, err, "job shop/import is not restored")
	require.ErrorContains(t, err, "timed out")
}
