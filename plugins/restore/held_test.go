package restore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestAPodWhoseGateIsNotAdmittedIsHeldBack(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", errors.New("maximum cpu usage per Container is 1, but limit is 2"))
	tests := map[string]struct {
		refuse func(*unstructured.Unstructured) error
		held   bool
	}{
		"the gate is refused": {held: true, refuse: func(p *unstructured.Unstructured) error {
			if list, _, _ := unstructured.NestedSlice(p.Object, "spec", "initContainers"); len(list) == 2 {
				return forbidden
			}

			return nil
		}},
		"the pod is refused anyway":   {refuse: func(*unstructured.Unstructured) error { return forbidden }},
		"the API server doesn't know": {refuse: func(*unstructured.Unstructured) error { return apierrors.NewInternalError(errors.New("webhook")) }},
		"such a pod is there, which is no refusal": {refuse: func(*unstructured.Unstructured) error {
			return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "pods"}, "web")
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.restore.Spec.NamespaceMapping = map[string]string{"shop": "shop2"}
			b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
				Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
					p, ok := o.(*unstructured.Unstructured)
					if !ok {
						return c.Create(ctx, o, opts...)
					}

					assert.Equal(t, []client.CreateOption{client.DryRunAll}, opts)
					assert.Equal(t, "shop2/web", p.GetNamespace()+"/"+p.GetName())

					return tt.refuse(p)
				},
			})

			pod, out, err := b.pod(recorded("web", podRecord(t, "nightly")))
			require.NoError(t, err)
			assert.Equal(t, tt.held, len(pod.Spec.SchedulingGates) == 1)
			assert.Equal(t, !tt.held, pod.Spec.InitContainers[0].Name == contract.GateContainer)
			assert.Equal(t, !tt.held, out.OperationID != "")

			if tt.held {
				assert.Empty(t, b.jobs())
				requireHeld(b, "maximum cpu usage")
			}
		})
	}
}

func TestAPodWaitsAtItsGateForWhoeverIsMissing(t *testing.T) {
	tests := map[string]struct {
		without string
		step    time.Duration
		says    string
	}{
		"no heartbeat":           {without: "lease", says: "no node daemon"},
		"a heartbeat that's old": {step: 3 * time.Minute, says: "no node daemon"},
		"no controller":          {without: "controller", says: "the controller of Estiba"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tt.without)
			b.clock.Step(tt.step)

			pod, out, err := b.pod(recorded("web", podRecord(t, "nightly")))
			require.NoError(t, err)
			assert.Equal(t, contract.GateContainer, pod.Spec.InitContainers[0].Name)
			assert.Empty(t, pod.Spec.SchedulingGates)
			assert.Len(t, b.jobs(), 2)
			assert.NotEmpty(t, out.OperationID)

			var said []string
			for _, line := range b.lines.AllEntries() {
				if line.Level == logrus.WarnLevel {
					said = append(said, line.Message)
				}
			}

			assert.Contains(t, strings.Join(said, "\n"), tt.says)
		})
	}
}

func TestAPodThatCanNotBeGatedExistsAndIsNeverScheduled(t *testing.T) {
	tests := map[string]struct {
		without string
		record  string
		says    string
	}{
		"no DaemonSet":           {without: "daemonset", says: "apply your overlay of Estiba's manifests"},
		"no Backup":              {without: "backup", says: "Backup velero/nightly"},
		"a record of the future": {record: `{"version":2}`, says: "version 2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tt.without)

			record := tt.record
			if record == "" {
				record = podRecord(t, "nightly")
			}

			original := recorded("web", record)
			original.Spec.NodeName = "n"
			original.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "theirs"}}

			pod, out, err := b.pod(original)
			require.NoError(t, err, "a pod that is left out is made anew by its controller, on empty volumes")
			assert.Equal(t, []corev1.PodSchedulingGate{{Name: "theirs"}, {Name: contract.SchedulingGate}}, pod.Spec.SchedulingGates)
			assert.Empty(t, pod.Spec.NodeName)
			assert.Contains(t, pod.Annotations[contract.AnnotationHeld], tt.says)
			assert.Empty(t, b.jobs())
			assert.Empty(t, out.OperationID)

			require.True(t, out.WaitForAdditionalItems, "only so does Velero ask for the error")
			requireHeld(b, tt.says)
		})
	}
}

func requireHeld(b *bench, says string) {
	b.Helper()

	action := NewPodAction(b.log, b.session)
	other := b.restore.DeepCopy()
	other.UID = "r-2"
	_, err := action.AreAdditionalItemsReady(nil, other)
	require.NoError(b, err, "it is another restore's")

	_, err = action.AreAdditionalItemsReady(nil, b.restore)
	require.ErrorContains(b, err, "shop/")
	require.ErrorContains(b, err, says)
	require.ErrorContains(b, err, "restore again")

	_, err = action.AreAdditionalItemsReady(nil, b.restore)
	require.NoError(b, err, "it is said once")
}

func TestJobsOfAPodThatIsHeldBackAreCancelled(t *testing.T) {
	b := newBench(t)
	_, _, err := b.pod(recorded("web", podRecord(t, "nightly")))
	require.NoError(t, err)

	// Another pod with the same claim, whose snapshot is another: a conflict.
	text, err := contract.PodRecord{Backup: contract.Owner{Name: "nightly", UID: "b-1"}, Volumes: map[string]contract.Volume{
		"cache": volumeRecord("vb-cache2", ""), "data": volumeRecord("vb-else", "data"),
	}}.Encode()
	require.NoError(t, err)
	pod, _, err := b.pod(recorded("web-1", text))
	require.NoError(t, err)
	assert.Len(t, pod.Spec.SchedulingGates, 1)
	requireHeld(b, "asks for something else")

	for _, job := range b.jobs() {
		assert.Equal(t, job.Spec.Snapshot.Job == "vb-cache2", job.Spec.Cancel, job.Spec.Snapshot.Job)
	}
}
