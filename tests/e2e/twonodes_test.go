//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

const (
	firstNode  = "node-1"
	secondNode = "node-2"
)

func TestAVolumeOfSeveralPodsIsRestoredByOneNode(t *testing.T) {
	t.Parallel()

	for name, nodes := range map[string][]string{
		"three pods on one node": {firstNode, firstNode, firstNode},
		"pods on both nodes":     {firstNode, secondNode, secondNode},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := open(t)
			require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
			dir := c.sharedVolume("before")
			c.create(sharedClaim(c.namespace))

			for i, node := range nodes {
				c.createPodOn(node, "pod-"+strconv.Itoa(i), []string{"shared"}, nil)
			}

			_, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, len(nodes))
			require.NoError(t, err)
			require.NoError(t, lab.FillVolume(dir, lab.Data{Files: 60, Bytes: 1 << 20, Seed: 70}))

			kept := filepath.Join(c.temp, "kept")
			require.NoError(t, c.Keep(c.ctx, dir, kept))
			c.backup(c.namespace)
			c.completed(c.namespace, 1)
			c.deleteNamespace()

			dir = c.sharedVolume("after")
			c.restore(c.namespace, c.namespace)

			pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, len(nodes))
			require.NoError(t, err)
			c.sameDir(kept, dir)

			seen := map[string]bool{}
			for _, pod := range pods {
				seen[c.seenBy(&pod)] = true
			}

			assert.Len(t, seen, 1, "all pods see the same files")

			restores, err := c.VolumeRestores(c.ctx, c.namespace)
			require.NoError(t, err)
			require.Len(t, restores, 1)
			assert.Equal(t, v1alpha1.PhaseCompleted, restores[0].Status.Phase)
			assert.Equal(t, []string{restores[0].Labels[contract.LabelNode]}, c.writers())
		})
	}
}

func TestPodsOfTheSecondNodeAreRestoredWhereTheyAreScheduled(t *testing.T) {
	t.Parallel()

	c := open(t)
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))
	c.create(lab.Claim(c.namespace, "data", classDelete))
	c.createPodOn(secondNode, "settler", []string{"data"}, nil)
	// The scheduler would not have put it there, and won't again.
	c.createPodWith("wanderer", nil, []string{"scratch"}, func(s *corev1.PodSpec) { s.NodeName = secondNode })

	kept := map[string]string{}
	for _, pod := range c.podsByName(2) {
		assert.Equal(t, secondNode, pod.Spec.NodeName)
		require.NoError(t, lab.FillVolume(c.volume(&pod), lab.Data{Files: 60, Bytes: 1 << 20, Seed: uint64(len(pod.Name))}))

		kept[pod.Name] = filepath.Join(c.temp, pod.Name)
		require.NoError(t, c.Keep(c.ctx, c.volume(&pod), kept[pod.Name]))
	}

	c.backup(c.namespace)

	for _, job := range c.completed(c.namespace, 2) {
		assert.Equal(t, secondNode, job.Labels[contract.LabelNode])
	}

	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)

	again := c.podsByName(2)
	for name, node := range map[string]string{"settler": secondNode, "wanderer": firstNode} {
		pod := again[name]
		assert.Equal(t, node, pod.Spec.NodeName, name)
		c.sameDir(kept[name], c.volume(&pod))
	}
}

// createPodOn makes a pod that runs on that node and nowhere else, and stays there whatever happens to the node.
func (c *cell) createPodOn(node, name string, claims, emptyDirs []string) {
	c.t.Helper()
	c.createPodWith(name, claims, emptyDirs, func(s *corev1.PodSpec) {
		s.NodeSelector = map[string]string{corev1.LabelHostname: node}
		s.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	})
}

// createPodWith makes a pod that is a little different.
func (c *cell) createPodWith(name string, claims, emptyDirs []string, edit func(*corev1.PodSpec)) {
	c.t.Helper()

	spec := lab.PodSpec(claims, emptyDirs)
	edit(&spec)
	c.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   c.namespace,
			Name:        name,
			Labels:      map[string]string{"app": "pod"},
			Annotations: map[string]string{contract.AnnotationBackupVolumes: "*"},
		},
		Spec: spec,
	})
}

func (c *cell) podsByName(n int) map[string]corev1.Pod {
	c.t.Helper()

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, n)
	require.NoError(c.t, err)

	byName := map[string]corev1.Pod{}
	for _, pod := range pods {
		byName[pod.Name] = pod
	}

	return byName
}

// sharedClaim is a claim "shared" that any pod of any node may mount.
func sharedClaim(namespace string) *corev1.PersistentVolumeClaim {
	claim := lab.Claim(namespace, "shared", "shared")
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}

	return claim
}

// sharedVolume makes the volume for the sharedClaim of the cell's namespace, and returns its folder, which both
// nodes see. It takes the place of an administrator who makes volumes by hand.
func (c *cell) sharedVolume(name string) string {
	c.t.Helper()

	dir := filepath.Join(lab.SharedDir(), c.namespace, name)
	require.NoError(c.t, os.MkdirAll(dir, 0o755))

	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              "shared",
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}},
			ClaimRef:                      &corev1.ObjectReference{Namespace: c.namespace, Name: "shared"},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{firstNode, secondNode},
				}},
			}}}},
		},
	}
	c.create(volume)
	c.t.Cleanup(func() { assert.NoError(c.t, os.RemoveAll(filepath.Dir(dir))) })

	return dir
}

// seenBy returns a checksum of all that a pod sees in its volume.
func (c *cell) seenBy(pod *corev1.Pod) string {
	c.t.Helper()

	out, err := c.Run(c.ctx, "kubectl", "exec", "--namespace="+pod.Namespace, pod.Name, "--container=app", "--",
		"sh", "-c", "cd /shared && tar -c -f - . | sha256sum")
	require.NoError(c.t, err)
	require.NotEmpty(c.t, out)

	return out
}

// writers returns the nodes whose daemons have restored a volume of the cell's namespace.
func (c *cell) writers() []string {
	c.t.Helper()

	daemons, err := c.ReadyPods(c.ctx, c.Namespace, map[string]string{contract.LabelComponent: contract.ComponentNode}, c.nodes())
	require.NoError(c.t, err)

	var nodes []string

	for _, pod := range daemons {
		_, metrics := c.http(pod.Status.PodIP + ":8085/metrics")
		for line := range strings.Lines(metrics) {
			if strings.Contains(line, `kind="VolumeRestore"`) && strings.Contains(line, c.namespace) {
				nodes = append(nodes, pod.Spec.NodeName)
			}
		}
	}

	return nodes
}

// settings has the daemons and the controller run with other flags until the test ends.
func (c *cell) settings(daemon, controller []string) {
	c.t.Helper()
	c.t.Cleanup(func() { c.apply(nil, nil) })
	c.apply(daemon, controller)
}

func (c *cell) apply(daemon, controller []string) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	var deployment appsv1.Deployment
	require.NoError(c.t, c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: "estiba-controller"}, &deployment))

	before := deployment.DeepCopy()
	deployment.Spec.Template.Spec.Containers[0].Args = controller
	// One must be gone before the next one starts, or it would hold on to its lease.
	deployment.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	require.NoError(c.t, c.Patch(ctx, &deployment, client.MergeFrom(before)))

	c.change(func(s *corev1.PodSpec) { s.Containers[0].Args = daemon })

	_, err := c.Run(ctx, "kubectl", "rollout", "status", "--namespace="+c.Namespace, "deployment/estiba-controller")
	require.NoError(c.t, err)
}

// cutOff cuts a node off from all others: it runs on, and nobody hears of it. The function mends that.
func (c *cell) cutOff(node string) (mend func()) {
	c.t.Helper()

	link := func(state string) error {
		_, err := c.Run(context.Background(), "ip", "link", "set", "to-"+node, state)

		return err
	}
	c.t.Cleanup(func() { assert.NoError(c.t, link("up")) })
	require.NoError(c.t, link("down"))

	return func() {
		c.t.Helper()
		require.NoError(c.t, link("up"))
	}
}
