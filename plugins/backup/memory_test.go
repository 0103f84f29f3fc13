package backup

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/contract"
)

// fatPod is a pod of some 25 kB, as a mesh, a GitOps tool and the kubelet make them.
func fatPod(namespace string, n int) corev1.Pod {
	text := func(kilobytes int) string { return strings.Repeat(fmt.Sprintf("%-16d", n), kilobytes*64) }
	pod := *podWith(fmt.Sprintf("web-%d", n), selecting("data"), ofClaim("data", fmt.Sprintf("data-%d", n)))
	pod.Namespace = namespace
	pod.Annotations[corev1.LastAppliedConfigAnnotation] = text(6)
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", FieldsV1: &metav1.FieldsV1{Raw: []byte(text(8))}}}
	pod.Spec.InitContainers = []corev1.Container{{Name: contract.GateContainer, Args: []string{text(2)}}}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", Value: text(5)}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: text(2)}}}}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: contract.GateContainer, ImageID: text(2)}}

	return pod
}

// Velero's server has 512 MiB by default, for itself and for the plugins.
func TestAClusterOfManyPodsLeavesTheServerItsMemory(t *testing.T) {
	for name, c := range map[string]struct{ namespaces, pods, mebibytes int }{
		"in many namespaces": {100, 100, 8},
		"in one namespace":   {1, 10_000, 40},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.client = interceptor.NewClient(b.client.(client.WithWatch), interceptor.Funcs{
				List: func(_ context.Context, _ client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
					o := client.ListOptions{}
					o.ApplyOptions(opts)

					pods, from, to := l.(*corev1.PodList), 0, c.pods
					if o.Limit > 0 {
						_, _ = fmt.Sscanf(o.Continue, "%d", &from)
						if to = min(from+int(o.Limit), c.pods); to < c.pods {
							pods.Continue = fmt.Sprint(to)
						}
					}

					for i := from; i < to; i++ {
						pods.Items = append(pods.Items, fatPod(o.Namespace, i))
					}

					return nil
				},
			})

			before := heap()

			for i := range c.namespaces {
				pods, err := b.session.podsIn(t.Context(), fmt.Sprintf("shop-%d", i))
				require.NoError(t, err)
				require.Len(t, pods, c.pods)
				assert.Equal(t, "data", pods[0].Spec.Containers[0].VolumeMounts[0].Name)
				b.clock.Step(6 * time.Second)
			}

			kept := int(heap()-before) >> 20
			t.Logf("%d MiB", kept)
			assert.LessOrEqual(t, kept, c.mebibytes)
			runtime.KeepAlive(b.session)
		})
	}
}

func heap() int64 {
	var m runtime.MemStats

	runtime.GC()
	runtime.ReadMemStats(&m)

	return int64(m.HeapAlloc)
}
