package restore

import (
	"cmp"
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
)

// gateUser is whom the gate's container runs as if the workload doesn't say: nobody who owns a file
// in a volume, and not root, as the restricted Pod Security Standard wants it.
const gateUser = 65532

// gates returns the init container that holds the pod until its volumes are filled, in the forms that are tried one
// after the other: one that asks for little, and one that asks for what the workload does.
func (s *Session) gates(ctx context.Context, log logrus.FieldLogger, r *velerov1.Restore, pod, original *corev1.Pod) ([]corev1.Container, error) {
	set, err := s.settings(ctx, log, r)
	if err != nil {
		return nil, err
	}

	image := set.Gate.Image
	if image == "" {
		if image, err = s.image(ctx, r); err != nil {
			return nil, err
		}
	}

	var forms []corev1.Container

	for _, resources := range []corev1.ResourceRequirements{smallResources(pod), likeTheWorkload(pod)} {
		c := standard(image)
		c.Resources = resources
		c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup = runAs(pod)
		// The owner is known from the backup only: Velero has taken it off the item.
		c.Args = append(c.Args, "--on-failure="+onFailure(original))

		if err := set.Gate.Apply(&c); err != nil {
			return nil, err
		}

		forms = append(forms, c)
	}

	return forms, nil
}

// runAs returns whom the gate runs as: whom the workload does, where that is
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

// standard returns the gate's container where nothing else is set.
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

// inject puts the gate before all other init containers of the pod, gives the pod
// the owner that stands in for its controller, if it needs one, and says on it which
// jobs open the gate. The pod is kept as JSON: what this release doesn't know of a
// pod must survive.
func inject(item *unstructured.Unstructured, how form, r *velerov1.Restore, jobs map[string]string) error {
	c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&how.container)
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

	record := contract.GateRecord{Restore: contract.Owner{Name: r.Name, UID: string(r.UID)}, VeleroNamespace: r.Namespace, Jobs: jobs}

	if how.owner != nil {
		record.StandIn = string(how.owner.UID)
		item.SetOwnerReferences([]metav1.OwnerReference{*how.owner})
	}

	text, err := record.Encode()
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
