//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// volumesOfAllSorts are the volumes that createAllSorts makes and that are moved: by pod, the volume's name there.
var volumesOfAllSorts = map[string][]string{
	"db-0": {"data"}, "db-1": {"data"}, "mixed": {"mine"}, "reader": {"as-a-whole", "by-mount"}, "seeded": {"seed"}, "roamer": {"shared"},
}

// One namespace with workloads of many sorts, in one backup, and what can be done with that.
func TestWorkloadsOfAllSortsComeBackTogether(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.createAllSorts()
	c.retain("mine", map[string]string{"tier": "gold", corev1.LabelTopologyZone: "old"})
	c.retain("shared", map[string]string{"tier": "gold"})

	kept := c.keepAllSorts()
	c.backup(c.namespace)
	c.completed(c.namespace, len(kept))

	t.Run("what runs already is left alone, and the restore says so", func(t *testing.T) {
		c := c.within(t)
		for _, policy := range []string{"none", "update"} {
			c.refusedInUse(c.namespace+"-"+policy, len(kept), "--existing-resource-policy", policy)
		}

		c.sameOfAllSorts(kept)
	})

	c.deleteNamespace()
	c.sharedVolume("after")
	c.restore(c.namespace, c.namespace)
	c.sameOfAllSorts(kept)

	restored := c.podsOfAllSorts()
	mixed := restored["mixed"]
	cache, err := c.VolumeDir(c.ctx, &mixed, "cache")
	require.NoError(t, err)

	left, err := os.ReadDir(cache)
	require.NoError(t, err)
	assert.Empty(t, left, "nobody asked for it")

	t.Run("the volume of a claim gets its labels and its reclaim policy back", func(t *testing.T) {
		c := c.within(t)

		mine := c.volumeOf("mine")
		assert.Equal(t, corev1.PersistentVolumeReclaimRetain, mine.Spec.PersistentVolumeReclaimPolicy)
		assert.Equal(t, "gold", mine.Labels["tier"])
		assert.NotContains(t, mine.Labels, corev1.LabelTopologyZone, "the new volume is where it is")

		assert.Equal(t, corev1.PersistentVolumeReclaimDelete, c.volumeOf("seed").Spec.PersistentVolumeReclaimPolicy)
		assert.NotContains(t, c.volumeOf("shared").Labels, "tier", "a person made it")
	})

	t.Run("one that was read-only as a whole still is for its pod", func(t *testing.T) {
		c := c.within(t)

		for _, volume := range volumesOfAllSorts["reader"] {
			_, err := c.Run(c.ctx, "kubectl", "exec", "--namespace="+c.namespace, "reader", "--container=app", "--", "touch", "/"+volume+"/new")
			assert.ErrorContains(t, err, "Read-only file system")
		}
	})

	t.Run("a restore without volumes brings new and empty ones, and no gates", func(t *testing.T) { c.within(t).restoredEmpty() })
	t.Run("one volume comes back alone", func(t *testing.T) { c.within(t).restoredAlone("mine", kept["mixed/mine"]) })
}

// createAllSorts makes the namespace and its workloads.
func (c *cell) createAllSorts() {
	c.t.Helper()
	require.NoError(c.t, c.CreateNamespace(c.ctx, c.namespace))
	c.t.Cleanup(c.removeVolumes)

	c.createSet("db", 2)

	for _, name := range []string{"mine", "by-mount", "seed"} {
		claim := lab.Claim(c.namespace, name, classDelete)
		if name == "mine" {
			claim.Labels = map[string]string{"alone": "yes"}
		}

		c.create(claim)
	}

	// A class that binds at once does so while nobody mounts the claim; the others wait for their first consumer.
	c.sharedVolume("before")
	c.create(sharedClaim(c.namespace))
	c.eventually("claim shared to be bound", func(ctx context.Context) (bool, error) {
		var claim corev1.PersistentVolumeClaim
		err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: "shared"}, &claim)

		return claim.Status.Phase == corev1.ClaimBound, err
	})

	require.NoError(c.t, os.RemoveAll(c.filled("as-a-whole", lab.Data{Files: 20, Bytes: 1 << 18, Seed: 90})))

	for name, edit := range map[string]func(*corev1.Pod){
		"mixed": func(p *corev1.Pod) {
			p.Annotations[contract.AnnotationBackupVolumes] = "mine"
			p.Spec = lab.PodSpec([]string{"mine"}, []string{"cache"})
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "config", VolumeSource: corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}},
			}})
		},
		"reader": func(p *corev1.Pod) {
			p.Spec = lab.PodSpec(volumesOfAllSorts["reader"], nil)
			p.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
			p.Spec.Containers[0].VolumeMounts[1].ReadOnly = true
		},
		"seeded": func(p *corev1.Pod) {
			p.Spec = lab.PodSpec([]string{"seed"}, nil)
			setup := *p.Spec.Containers[0].DeepCopy()
			setup.Name, setup.Command = "setup", []string{"true"}
			p.Spec.InitContainers, p.Spec.Containers[0].VolumeMounts = []corev1.Container{setup}, nil
		},
		"roamer": func(p *corev1.Pod) { p.Spec = lab.PodSpec([]string{"shared"}, nil) },
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: c.namespace, Name: name, Labels: map[string]string{"sort": "all"}, Annotations: map[string]string{contract.AnnotationBackupVolumes: "*"},
		}}
		edit(pod)
		c.create(pod)
	}
}

// createSet makes a StatefulSet whose pods have a claim "data" each.
func (c *cell) createSet(name string, n int32) {
	c.t.Helper()

	labels := map[string]string{"app": name, "sort": "all"}
	template := lab.Claim("", "data", classDelete)
	spec := lab.PodSpec([]string{"data"}, nil)
	spec.Volumes = nil // The controller adds that of the template.

	c.create(&appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{*template},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{contract.AnnotationBackupVolumes: "data"}},
				Spec:       spec,
			},
		},
	})
}

func (c *cell) podsOfAllSorts() map[string]corev1.Pod {
	c.t.Helper()

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"sort": "all"}, len(volumesOfAllSorts))
	require.NoError(c.t, err)

	byName := map[string]corev1.Pod{}
	for _, pod := range pods {
		byName[pod.Name] = pod
	}

	return byName
}

// eachOfAllSorts calls f for each moved volume, with its folder and a name of its own.
func (c *cell) eachOfAllSorts(f func(name, dir string)) {
	c.t.Helper()

	pods := c.podsOfAllSorts()
	for name, volumes := range volumesOfAllSorts {
		pod := pods[name]

		for _, volume := range volumes {
			dir, err := c.VolumeDir(c.ctx, &pod, volume)
			require.NoError(c.t, err)
			f(name+"/"+volume, dir)
		}
	}
}

// keepAllSorts fills all moved volumes but the read-only one, which has been, and returns copies. What isn't moved gets a file.
func (c *cell) keepAllSorts() map[string]string {
	c.t.Helper()

	kept := map[string]string{}

	c.eachOfAllSorts(func(name, dir string) {
		if name != "reader/as-a-whole" {
			require.NoError(c.t, lab.FillVolume(dir, lab.Data{Files: 20, Bytes: 1 << 18, Seed: uint64(91 + len(kept))}))
		}

		kept[name] = filepath.Join(c.temp, "kept", name)
		require.NoError(c.t, c.Keep(c.ctx, dir, kept[name]))
	})

	mixed := c.podsOfAllSorts()["mixed"]
	cache, err := c.VolumeDir(c.ctx, &mixed, "cache")
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(filepath.Join(cache, "file"), nil, 0o600))

	return kept
}

func (c *cell) sameOfAllSorts(kept map[string]string) {
	c.t.Helper()
	c.eachOfAllSorts(func(name, dir string) { c.sameDir(kept[name], dir) })
}

// volumeOf returns the volume that the claim is bound to.
func (c *cell) volumeOf(claim string) *corev1.PersistentVolume {
	c.t.Helper()

	var (
		pvc corev1.PersistentVolumeClaim
		pv  corev1.PersistentVolume
	)

	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.namespace, Name: claim}, &pvc))
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Name: pvc.Spec.VolumeName}, &pv))

	return &pv
}

// retain sets on the claim's volume the reclaim policy Retain, and labels.
func (c *cell) retain(claim string, labels map[string]string) {
	c.t.Helper()
	c.podsOfAllSorts()

	pv := c.volumeOf(claim)
	before := pv.DeepCopy()
	pv.Labels, pv.Spec.PersistentVolumeReclaimPolicy = labels, corev1.PersistentVolumeReclaimRetain
	require.NoError(c.t, c.Patch(c.ctx, pv, client.MergeFrom(before)))
}

// removeVolumes removes the retained volumes of the cell's namespace.
func (c *cell) removeVolumes() {
	var list corev1.PersistentVolumeList
	require.NoError(c.t, c.List(context.Background(), &list))

	for i := range list.Items {
		if ref := list.Items[i].Spec.ClaimRef; ref != nil && ref.Namespace == c.namespace {
			assert.NoError(c.t, client.IgnoreNotFound(c.Delete(context.Background(), &list.Items[i])))
		}
	}
}

// refusedInUse restores into volumes that pods use, which must bring nothing and say so of each of them.
func (c *cell) refusedInUse(restore string, n int, args ...string) {
	c.t.Helper()
	require.NoError(c.t, c.Restore(c.ctx, restore, c.namespace, args...))

	r, err := c.WaitRestore(c.ctx, restore)
	require.NoError(c.t, err)
	assert.Equal(c.t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase)

	jobs, err := c.VolumeRestores(c.ctx, restore)
	require.NoError(c.t, err)
	assert.Len(c.t, jobs, n)

	for _, job := range jobs {
		assert.Equal(c.t, v1alpha1.PhaseFailed, job.Status.Phase)
		assert.Equal(c.t, "UngatedPod", job.Status.Reason, job.Status.Message)
		assert.Nil(c.t, job.Status.WritingSince)
	}
}

// restoredEmpty restores into another namespace without volumes.
func (c *cell) restoredEmpty() {
	c.t.Helper()

	other := c.namespace + "-empty"
	c.t.Cleanup(func() { assert.NoError(c.t, c.DeleteNamespace(context.Background(), other)) })
	c.restore(other, c.namespace, "--restore-volumes=false", "--namespace-mappings", c.namespace+":"+other)

	jobs, err := c.VolumeRestores(c.ctx, other)
	require.NoError(c.t, err)
	assert.Empty(c.t, jobs)

	pods, err := c.ReadyPods(c.ctx, other, map[string]string{"app": "db"}, 2)
	require.NoError(c.t, err)

	for i := range pods {
		assert.Empty(c.t, pods[i].Spec.InitContainers)

		dir, err := c.VolumeDir(c.ctx, &pods[i], "data")
		require.NoError(c.t, err)

		entries, err := os.ReadDir(dir)
		require.NoError(c.t, err)
		assert.Empty(c.t, entries)
	}
}

// restoredAlone restores one claim, and nothing else.
func (c *cell) restoredAlone(claim, want string) {
	c.t.Helper()
	c.deleteNamespace()
	c.restore(c.namespace+"-alone", c.namespace, "--include-resources", "persistentvolumeclaims,persistentvolumes", "--selector", "alone=yes")

	jobs, err := c.VolumeRestores(c.ctx, c.namespace+"-alone")
	require.NoError(c.t, err)
	require.Len(c.t, jobs, 1)
	c.through(claim, func(dir string) { c.sameDir(want, dir) })

	var claims corev1.PersistentVolumeClaimList
	require.NoError(c.t, c.List(c.ctx, &claims, client.InNamespace(c.namespace)))
	assert.Len(c.t, claims.Items, 1)
	assert.Equal(c.t, ptr.To(classDelete), claims.Items[0].Spec.StorageClassName)
}
