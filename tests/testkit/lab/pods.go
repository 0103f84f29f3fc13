package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
)

// TestImage is the image of test pods: a static busybox, loaded into the cluster when it starts.
const TestImage = "estiba.test/busybox:1"

// PostgreSQLImage is the image of test pods with a database; it runs as a user of its own.
const PostgreSQLImage = "estiba.test/postgresql:1"

// podsRoot is where the first node's kubelet keeps the volumes of its pods, as seen inside the cluster's namespaces.
const podsRoot = "/var/lib/kubelet/pods"

// clusterVariable is set inside the cluster's namespaces to the cluster's state folder.
const clusterVariable = "ESTIBA_CLUSTER_INSIDE"

// SharedDir returns a folder that all nodes see under the same path.
func SharedDir() string { return filepath.Join(os.Getenv(clusterVariable), "shared") }

// PodSpec returns the spec of a pod that sleeps and mounts volumes: those in
// claims by the name of their claim, those in emptyDirs by their own.
func PodSpec(claims, emptyDirs []string) corev1.PodSpec {
	grace := int64(0)
	spec := corev1.PodSpec{
		TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{
			Name:            "app",
			Image:           TestImage,
			ImagePullPolicy: corev1.PullIfNotPresent,
			Command:         []string{"sleep", "1000000"},
		}},
	}

	add := func(name string, source corev1.VolumeSource) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
	}
	for _, name := range claims {
		add(name, corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
	}

	for _, name := range emptyDirs {
		add(name, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	}

	return spec
}

// Claim returns a claim of a storage class.
func Claim(namespace, name, class string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
}

// ReadyPods waits until n pods with the labels are ready, and returns them. Pods
// that are being deleted do not count.
func (l *Lab) ReadyPods(ctx context.Context, namespace string, labels map[string]string, n int) ([]corev1.Pod, error) {
	var ready []corev1.Pod

	err := l.Wait(ctx, fmt.Sprintf("%d pods with labels %v in namespace %s to be ready", n, labels, namespace), func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		if err := l.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels(labels)); err != nil {
			return false, err
		}

		ready = ready[:0]

		for _, pod := range pods.Items {
			if pod.DeletionTimestamp == nil && IsReady(&pod) {
				ready = append(ready, pod)
			}
		}

		return len(ready) == n, nil
	})

	return ready, err
}

// IsReady reports whether a pod's condition Ready is true.
func IsReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}

	return false
}

// VolumeDir returns the folder of a pod's volume, as root sees it on the first node of the cluster that this runs in.
func (l *Lab) VolumeDir(ctx context.Context, pod *corev1.Pod, volume string) (string, error) {
	for _, v := range pod.Spec.Volumes {
		if v.Name != volume {
			continue
		}

		root, err := l.rootOf(pod.Spec.NodeName)
		if err != nil {
			return "", err
		}

		switch {
		case v.PersistentVolumeClaim != nil:
			return l.claimDir(ctx, pod, v.PersistentVolumeClaim.ClaimName, root)
		case v.Ephemeral != nil: // has a claim of its own
			return l.claimDir(ctx, pod, pod.Name+"-"+volume, root)
		default:
			return filepath.Join(root, string(pod.UID), "volumes/kubernetes.io~empty-dir", volume), nil
		}
	}

	return "", fmt.Errorf("pod %s/%s has no volume %s", pod.Namespace, pod.Name, volume)
}

// rootOf returns the folder of a node's pods. Those of the other nodes, and of another cluster's,
// are seen in the cluster's state folder, but not what is mounted in them.
func (l *Lab) rootOf(node string) (string, error) {
	here, err := os.Hostname()
	if err != nil || node == here && l.state == os.Getenv(clusterVariable) {
		return podsRoot, err
	}

	return filepath.Join(l.state, "nodes", node, "kubelet/pods"), nil
}

func (l *Lab) claimDir(ctx context.Context, pod *corev1.Pod, name, root string) (string, error) {
	var claim corev1.PersistentVolumeClaim
	if err := l.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: name}, &claim); err != nil {
		return "", err
	}

	if root != podsRoot {
		var volume corev1.PersistentVolume
		if err := l.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &volume); err != nil {
			return "", err
		}

		if volume.Spec.Local == nil {
			return "", fmt.Errorf("volume %s of claim %s/%s on another node is not a local one", volume.Name, pod.Namespace, name)
		}

		return volume.Spec.Local.Path, nil
	}

	found, err := filepath.Glob(filepath.Join(root, string(pod.UID), "volumes/*", claim.Spec.VolumeName))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("claim %s of pod %s/%s: found %v: %w", name, pod.Namespace, pod.Name, found, os.ErrNotExist)
	}

	return found[0], nil
}

// Keep copies a folder with all its attributes, for a later comparison.
func (l *Lab) Keep(ctx context.Context, dir, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}

	// Without the modify window, rsync takes times of the same second for equal and leaves them.
	_, err := l.Run(ctx, "rsync", "-aHAX", "--numeric-ids", "--modify-window=-1", dir+"/", to+"/")

	return err
}

// Differences compares two folders entry by entry, content and attributes, with
// rsync as the judge. It is empty when they are the same.
func (l *Lab) Differences(ctx context.Context, want, got string) (string, error) {
	return l.Run(ctx, "rsync", "-niaHAXc", "--delete", "--numeric-ids", "--modify-window=-1", want+"/", got+"/")
}

// GatedPod waits until the gate's container of a namespace's only gated pod has been started, and returns the pod.
func (l *Lab) GatedPod(ctx context.Context, namespace string) (*corev1.Pod, error) {
	var gated *corev1.Pod

	err := l.Wait(ctx, "a pod with a gate in namespace "+namespace, func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		if err := l.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
			return false, err
		}

		for i, pod := range pods.Items {
			for _, status := range pod.Status.InitContainerStatuses {
				if status.Name == contract.GateContainer && (status.State.Running != nil || status.State.Terminated != nil) {
					gated = &pods.Items[i]

					return true, nil
				}
			}
		}

		return false, nil
	})

	return gated, err
}
