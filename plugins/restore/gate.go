package restore

import (
	"cmp"
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
)

// gateUser is whom the gate's container runs as if the workload doesn't say: nobody who owns a file
// in a volume, and not root, as the restricted Pod Security Standard wants it.
const gateUser = 65532

// gateMemory is the least limit that the gate's container can live with.
const gateMemory = "32Mi"

// gate gives the init container that holds the pod until its volumes are filled.
func (s *Session) gate(ctx context.Context, log logrus.FieldLogger, r *velerov1.Restore, pod *corev1.Pod) (corev1.Container, error) {
	set, err := s.settings(ctx, log, r)
	if err != nil {
		return corev1.Container{}, err
	}

	image := set.Gate.Image
	if image == "" {
		if image, err = s.image(ctx, r); err != nil {
			return corev1.Container{}, err
		}
	}

	c := standard(image)
	c.Resources = resourcesOf(pod)
	c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup = runAs(pod)

	if err := set.Gate.Apply(&c); err != nil {
		return corev1.Container{}, err
	}

	return c, nil
}

// runAs gives whom the gate runs as: whom the workload does, where that is
// known and not root. A namespace may admit only a range of users, and the workload's is one of it.
func runAs(pod *corev1.Pod) (user, group *int64) {
	user, group = ptr.To(int64(gateUser)), ptr.To(int64(gateUser))

	var u, g *int64
	if p := pod.Spec.SecurityContext; p != nil {
		u, g = p.RunAsUser, p.RunAsGroup
	}

	if len(pod.Spec.Containers) > 0 && pod.Spec.Containers[0].SecurityContext != nil {
		c := pod.Spec.Containers[0].SecurityContext
		u, g = cmp.Or(c.RunAsUser, u), cmp.Or(c.RunAsGroup, g)
	}

	if u != nil && *u != 0 {
		user = u
	}

	if g != nil && *g != 0 {
		group = g
	}

	return user, group
}

// resourcesOf gives the gate those of the workload's first container: so a quota
// or a range of the namespace admits it as it admitted that one, the pod needs no
// more than before, for init containers run first, and it keeps its quality of service.
func resourcesOf(pod *corev1.Pod) corev1.ResourceRequirements {
	if len(pod.Spec.Containers) == 0 {
		return corev1.ResourceRequirements{}
	}

	only := func(all corev1.ResourceList) corev1.ResourceList {
		some := corev1.ResourceList{}

		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if q, ok := all[name]; ok {
				some[name] = q
			}
		}

		return some
	}

	first := pod.Spec.Containers[0].Resources
	r := corev1.ResourceRequirements{Requests: only(first.Requests), Limits: only(first.Limits)}

	least := resource.MustParse(gateMemory)
	if limit, ok := r.Limits[corev1.ResourceMemory]; ok && limit.Cmp(least) < 0 {
		r.Limits[corev1.ResourceMemory] = least
	}

	return r
}

// standard gives the gate's container where nothing else is set.
func standard(image string) corev1.Container {
	return corev1.Container{
		Name:                     contract.GateContainer,
		Image:                    image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Command:                  []string{contract.GateCommand},
		Args:                     []string{"--gate=" + contract.GateMountPath},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		VolumeMounts:             []corev1.VolumeMount{{Name: contract.GateVolume, MountPath: contract.GateMountPath, ReadOnly: true}},
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot:             ptr.To(true),
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

	contract.Annotate(item.Object, contract.AnnotationRestore, text)

	return nil
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
