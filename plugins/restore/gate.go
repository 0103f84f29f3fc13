package restore

import (
	"fmt"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
)

// gateUser is whom the gate's container runs as: nobody who owns a file in a
// volume, and not root, as the restricted Pod Security Standard wants it.
const gateUser = 65532

// gate gives the init container that holds a pod until its volumes are filled.
func gate(image, onFailure string) corev1.Container {
	return corev1.Container{
		Name:                     contract.GateContainer,
		Image:                    image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Command:                  []string{contract.GateCommand},
		Args:                     []string{"--gate=" + contract.GateMountPath, "--on-failure=" + onFailure},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		VolumeMounts:             []corev1.VolumeMount{{Name: contract.GateVolume, MountPath: contract.GateMountPath, ReadOnly: true}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
		},
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot:             ptr.To(true),
			RunAsUser:                ptr.To(int64(gateUser)),
			RunAsGroup:               ptr.To(int64(gateUser)),
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

// onFailure says what the gate does when the data can't be brought. A pod that
// restarts in place ends with the message, again and again. One that its
// owner would replace stays closed, for the new pod would come without a gate.
func onFailure(pod *corev1.Pod) string {
	o := metav1.GetControllerOf(pod)
	if pod.Spec.RestartPolicy == corev1.RestartPolicyNever || o != nil && o.Kind == "Job" {
		return "hold"
	}

	return "exit"
}

// inject puts the gate before all other init containers of the pod, and says on
// the pod which jobs open it. The pod is kept as JSON: what this release doesn't
// know of a pod must survive.
func inject(item *unstructured.Unstructured, container corev1.Container, r *velerov1.Restore, jobs map[string]string) error {
	c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&container)
	if err != nil {
		return fmt.Errorf("put the gate into pod %s: %w", item.GetName(), err)
	}

	volume := map[string]any{"name": contract.GateVolume, "emptyDir": map[string]any{}}

	if err := insert(item, c, true, "spec", "initContainers"); err != nil {
		return err
	}

	if err := insert(item, volume, false, "spec", "volumes"); err != nil {
		return err
	}

	text, err := contract.GateRecord{Restore: contract.Owner{Name: r.Name, UID: string(r.UID)}, Jobs: jobs}.Encode()
	if err != nil {
		return err
	}

	annotate(item, contract.AnnotationRestore, text)

	return nil
}

func annotate(item *unstructured.Unstructured, key, value string) {
	a := item.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}

	a[key] = value
	item.SetAnnotations(a)
}

func insert(item *unstructured.Unstructured, entry map[string]any, first bool, path ...string) error {
	list, _, err := unstructured.NestedSlice(item.Object, path...)
	if err != nil {
		return fmt.Errorf("put the gate into pod %s: %w", item.GetName(), err)
	}

	if first {
		list = append([]any{entry}, list...)
	} else {
		list = append(list, entry)
	}

	if err := unstructured.SetNestedSlice(item.Object, list, path...); err != nil {
		return fmt.Errorf("put the gate into pod %s: %w", item.GetName(), err)
	}

	return nil
}
