package cluster

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

const (
	// stagingUser is nobody who owns a file in a volume, and not root, as the restricted Pod Security Standard wants it.
	stagingUser = 65532
	// stagingLife bounds a staging pod's life should nobody be left to remove it, in seconds.
	stagingLife = 24 * 60 * 60
	// stagingGrace is what its container gets to end, in seconds: it has nothing to do.
	stagingGrace = 2
)

// stagingDefaults are what the container gets where the namespace says nothing else:
// measured, the waiting program takes 6 MiB and no time.
func stagingDefaults() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("10m"),
		corev1.ResourceMemory:           resource.MustParse("32Mi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("16Mi"),
	}
}

// staging is what a staging pod is made from.
type staging struct {
	job       string
	install   string
	namespace string
	claim     string
	// claimUID is empty where the claim isn't there.
	claimUID types.UID
	readOnly bool
	// bound says that the volume may be on some nodes only, so that taints must not keep the pod from it.
	bound bool
	// daemon is the pod of the node daemons: what it runs, and where.
	daemon corev1.PodSpec
	limits []corev1.LimitRange
}

// pod returns the staging pod. It mounts the claim and does nothing: the node's
// daemon reads or writes the volume where the kubelet has mounted it.
func (s staging) pod() *corev1.Pod {
	requests := fitted(stagingDefaults(), s.limits)

	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.namespace,
			Name:      contract.StagingPodName(s.job),
			Labels: map[string]string{
				contract.LabelStaging:           s.job,
				contract.LabelInstall:           s.install,
				contract.LabelComponent:         contract.ComponentStaging,
				contract.LabelExcludeFromBackup: "true",
				"app.kubernetes.io/part-of":     "estiba",
				// What a mesh would put beside it is of no use.
				"sidecar.istio.io/inject": "false",
			},
			Annotations:     map[string]string{"linkerd.io/inject": "disabled"},
			OwnerReferences: s.owners(),
		},
		Spec: corev1.PodSpec{
			ActiveDeadlineSeconds:         ptr.To(int64(stagingLife)),
			TerminationGracePeriodSeconds: ptr.To(int64(stagingGrace)),
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			NodeSelector:                  s.daemon.NodeSelector,
			Tolerations:                   s.tolerations(),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   ptr.To(true),
				RunAsUser:      ptr.To(int64(stagingUser)),
				RunAsGroup:     ptr.To(int64(stagingUser)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				// No fsGroup: it would have the kubelet change the owners of the files.
			},
			Containers: []corev1.Container{{
				Name:            contract.StagingContainer,
				Image:           s.daemon.Containers[0].Image,
				ImagePullPolicy: s.daemon.Containers[0].ImagePullPolicy,
				Command:         []string{contract.GateCommand, contract.StagingHold},
				Resources:       corev1.ResourceRequirements{Requests: requests, Limits: requests},
				// Without a mount in a container the kubelet doesn't mount the volume at all.
				VolumeMounts: []corev1.VolumeMount{{Name: contract.StagingVolume, MountPath: contract.StagingMountPath, ReadOnly: true}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false),
					ReadOnlyRootFilesystem:   ptr.To(true),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
			Volumes: []corev1.Volume{{Name: contract.StagingVolume, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: s.claim, ReadOnly: s.readOnly},
			}}},
		},
	}
}

// owners names the claim, which can't go while the pod is there: a namespace may admit no pod without an owner, and
// the job, for which the pod is made, is in another namespace.
func (s staging) owners() []metav1.OwnerReference {
	if s.claimUID == "" {
		return nil
	}

	return []metav1.OwnerReference{{APIVersion: "v1", Kind: string(v1alpha1.VolumePersistentVolumeClaim), Name: s.claim, UID: s.claimUID}}
}

// tolerations let the pod go where its volume is, whatever the node is tainted
// with for new pods. Where the volume can go anywhere, so does the pod: to a node without taints.
func (s staging) tolerations() []corev1.Toleration {
	if !s.bound {
		return nil
	}

	return []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
}

// fitted raises and lowers the resources to what the limit ranges of the namespace admit.
func fitted(want corev1.ResourceList, ranges []corev1.LimitRange) corev1.ResourceList {
	for i := range ranges {
		for _, item := range ranges[i].Spec.Limits {
			if item.Type != corev1.LimitTypeContainer && item.Type != corev1.LimitTypePod {
				continue
			}

			for name, least := range item.Min {
				if have, ours := want[name]; ours && have.Cmp(least) < 0 {
					want[name] = least
				}
			}
		}
	}

	for i := range ranges {
		for _, item := range ranges[i].Spec.Limits {
			if item.Type != corev1.LimitTypeContainer && item.Type != corev1.LimitTypePod {
				continue
			}

			for name, most := range item.Max {
				if have, ours := want[name]; ours && have.Cmp(most) > 0 {
					want[name] = most
				}
			}
		}
	}

	return want
}
