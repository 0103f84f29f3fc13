//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// start begins a backup of the cell's namespace and does not wait.
func (c *cell) start(name string) {
	c.t.Helper()

	_, err := c.Velero(c.ctx, "backup", "create", name, "--include-namespaces", c.namespace, "--snapshot-volumes=false")
	require.NoError(c.t, err)
}

// endsPartial waits for a backup's end, which must be PartiallyFailed, and returns its log and its description: the
// failure of an operation that ends after Velero has uploaded the log is in the description only.
func (c *cell) endsPartial(name string) string {
	c.t.Helper()

	b, err := c.WaitBackup(c.ctx, name)
	require.NoError(c.t, err)
	c.requireBackup(b, velerov1.BackupPhasePartiallyFailed)

	logs, err := c.Velero(c.ctx, "backup", "logs", name)
	require.NoError(c.t, err)

	described, err := c.Velero(c.ctx, "backup", "describe", name, "--details")
	require.NoError(c.t, err)

	return logs + described
}

// partial takes a backup that must be PartiallyFailed, and returns its log.
func (c *cell) partial(name string) string {
	c.t.Helper()

	return c.partialOf(name, c.namespace)
}

func (c *cell) partialOf(name, namespace string) string {
	c.t.Helper()

	_, err := c.Velero(c.ctx, "backup", "create", name, "--include-namespaces", namespace, "--snapshot-volumes=false")
	require.NoError(c.t, err)

	return c.endsPartial(name)
}

// job waits until the backup's job of a volume is as it is to be.
func (c *cell) job(backup, volume, what string, is func(v1alpha1.JobStatus) bool) *v1alpha1.VolumeBackup {
	c.t.Helper()

	var found *v1alpha1.VolumeBackup

	require.NoError(c.t, c.Wait(c.ctx, "the job of volume "+volume+" to "+what, func(ctx context.Context) (bool, error) {
		jobs, err := c.VolumeBackups(ctx, backup)
		if err != nil {
			return false, err
		}

		for i := range jobs {
			if jobs[i].Spec.Volume.Name == volume && is(jobs[i].Status.JobStatus) {
				found = &jobs[i]
			}
		}

		return found != nil, nil
	}))

	return found
}

// running waits until the job's worker runs; a job that ends before fails the test.
func (c *cell) running(backup, volume string) *v1alpha1.VolumeBackup {
	c.t.Helper()

	job := c.job(backup, volume, "run", func(s v1alpha1.JobStatus) bool {
		return s.Phase == v1alpha1.PhaseInProgress || s.Phase.Terminal()
	})
	require.Equal(c.t, v1alpha1.PhaseInProgress, job.Status.Phase, "%s: %s", job.Status.Reason, job.Status.Message)

	return job
}

func (c *cell) ended(backup, volume string) *v1alpha1.VolumeBackup {
	c.t.Helper()

	return c.job(backup, volume, "end", func(s v1alpha1.JobStatus) bool { return s.Phase.Terminal() })
}

// restoring waits until a worker of the restore has written something.
func (c *cell) restoring(restore string) {
	c.t.Helper()
	require.NoError(c.t, c.Wait(c.ctx, "a job of restore "+restore+" to run", func(ctx context.Context) (bool, error) {
		jobs, err := c.VolumeRestores(ctx, restore)
		if err != nil {
			return false, err
		}

		for _, job := range jobs {
			if job.Status.Phase.Terminal() {
				return false, fmt.Errorf("VolumeRestore %s has ended: %s: %s", job.Name, job.Status.Reason, job.Status.Message)
			}

			if job.Status.Phase == v1alpha1.PhaseInProgress && job.Status.Progress.BytesDone > 0 {
				return true, nil
			}
		}

		return false, nil
	}))
}

// told returns what Velero tells of a restore and its operations. Its log has the end only of operations that ended
// before the log was uploaded, which depends on how busy the machine is.
func (c *cell) told(restore string) string {
	c.t.Helper()

	described, err := c.Velero(c.ctx, "restore", "describe", restore, "--details")
	require.NoError(c.t, err)

	return described
}

func (c *cell) cancel(job client.Object) {
	c.t.Helper()
	require.NoError(c.t, c.Patch(c.ctx, job, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"cancel":true}}`))))
}

// another makes a second namespace with an application of its own.
func (c *cell) another(suffix string) *lab.App {
	c.t.Helper()

	a := &lab.App{Lab: c.Lab, Namespace: c.namespace + "-" + suffix, Class: classDelete}
	_, err := a.Deploy(c.ctx)
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		assert.NoError(c.t, c.DeleteNamespace(ctx, a.Namespace))
	})

	return a
}

// putKey makes the master key's Secret anew.
func (c *cell) putKey(data map[string][]byte) {
	c.t.Helper()

	s := &corev1.Secret{Data: data}
	s.Namespace, s.Name = c.Namespace, contract.MasterKeySecret
	s.Labels = map[string]string{contract.LabelExcludeFromBackup: "true"}

	require.NoError(c.t, client.IgnoreNotFound(c.Delete(context.Background(), s.DeepCopy())))
	require.NoError(c.t, c.Create(context.Background(), s))
}

// repository waits until the namespace's repository gives a reason, and returns the message.
func (c *cell) repository(namespace, reason string) string {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, 90*time.Second)
	defer cancel()

	var last v1alpha1.RepositoryStatus

	err := c.Wait(ctx, "the repository of namespace "+namespace+" to be "+reason, func(ctx context.Context) (bool, error) {
		repositories, err := c.Repositories(ctx, namespace)
		if err != nil || len(repositories) == 0 {
			return false, err
		}

		last = repositories[0].Status

		return last.Reason == reason, nil
	})
	require.NoError(c.t, err, "the last was %s: %s", last.Reason, last.Message)

	return last.Message
}

// event requires an event of the reason about an object.
func (c *cell) event(namespace, kind, name, reason string) {
	c.t.Helper()

	require.NoError(c.t, c.Wait(c.ctx, fmt.Sprintf("an event %s about %s %s", reason, kind, name), func(ctx context.Context) (bool, error) {
		var list corev1.EventList
		if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return false, err
		}

		for _, e := range list.Items {
			if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name && e.Reason == reason {
				return true, nil
			}
		}

		return false, nil
	}))
}

// repositoryDir is where the store of the local cluster, which keeps objects as files, has the cell's repository.
func (c *cell) repositoryDir() string {
	c.t.Helper()

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(c.t, err)
	require.Len(c.t, repositories, 1)

	cluster := os.Getenv("ESTIBA_CLUSTER_DIR")
	if cluster == "" {
		cluster = "/var/lib/estiba-cluster"
	}

	return filepath.Join(cluster, "s3/velero", repositories[0].Status.Path)
}

// removeBlobs removes the blobs whose names match from the cell's repository, behind everybody's back.
func (c *cell) removeBlobs(pattern string) {
	c.t.Helper()
	c.removeBlobsBut(nil, pattern)
}

// removeBlobsBut removes those that match and are not among the ones to keep.
func (c *cell) removeBlobsBut(keep []string, pattern string) {
	c.t.Helper()

	found := slices.DeleteFunc(c.blobs(pattern), func(path string) bool { return slices.Contains(keep, path) })
	require.NotEmpty(c.t, found)

	for _, path := range found {
		require.NoError(c.t, os.Remove(path))
	}
}

// blobs returns the paths of the blobs in the cell's repository.
func (c *cell) blobs(pattern ...string) []string {
	c.t.Helper()

	found, err := filepath.Glob(filepath.Join(c.repositoryDir(), append(pattern, "*")[0]))
	require.NoError(c.t, err)

	return found
}

func (c *cell) daemonSet(ctx context.Context) (*appsv1.DaemonSet, error) {
	var set appsv1.DaemonSet
	err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: "estiba-node"}, &set)

	return &set, err
}

// change changes the DaemonSet and waits until all pods are of the new kind, one on
// each node, and ready.
func (c *cell) change(edit func(*corev1.PodSpec)) {
	c.t.Helper()

	c.changeTo(c.nodes(), edit)
}

// nodes returns the number of nodes.
func (c *cell) nodes() int {
	c.t.Helper()

	var nodes corev1.NodeList
	require.NoError(c.t, c.List(context.Background(), &nodes))

	return len(nodes.Items)
}

// changeTo does so where n daemons are to be left.
func (c *cell) changeTo(n int, edit func(*corev1.PodSpec)) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	set, err := c.daemonSet(ctx)
	require.NoError(c.t, err)

	before := set.DeepCopy()
	// All at once: a test waits for it.
	set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString("100%"))
	edit(&set.Spec.Template.Spec)
	require.NoError(c.t, c.Patch(ctx, set, client.MergeFrom(before)))

	require.NoError(c.t, c.Wait(ctx, fmt.Sprintf("%d changed daemons", n), func(ctx context.Context) (bool, error) {
		set, err := c.daemonSet(ctx)
		if err != nil || set.Status.ObservedGeneration != set.Generation {
			return false, err
		}

		var pods corev1.PodList
		if err := c.List(ctx, &pods, client.InNamespace(c.Namespace), client.MatchingLabels{contract.LabelComponent: contract.ComponentNode}); err != nil {
			return false, err
		}

		s := set.Status

		return len(pods.Items) == n && int(s.UpdatedNumberScheduled) == n && int(s.NumberReady) == n && int(s.DesiredNumberScheduled) == n, nil
	}))
}

// limit has the daemon move no more than that many bytes in a second, and returns it more flags. The function takes
// that back.
func (c *cell) limit(rate string, flags ...string) (lift func()) {
	c.t.Helper()
	c.change(func(s *corev1.PodSpec) {
		s.Containers[0].Args = append([]string{"--upload-limit=" + rate, "--download-limit=" + rate}, flags...)
	})

	lift = sync.OnceFunc(func() {
		c.change(func(s *corev1.PodSpec) { s.Containers[0].Args = nil })
	})
	c.t.Cleanup(lift)

	return lift
}

// withoutDaemon takes the daemon and its heartbeat away until the function that it gives is called, or the test ends.
func (c *cell) withoutDaemon() (back func()) {
	c.t.Helper()

	const nowhere = "estiba.dev/e2e-nowhere"

	back = sync.OnceFunc(func() {
		c.change(func(s *corev1.PodSpec) { delete(s.NodeSelector, nowhere) })
		c.heartbeat()
	})
	c.t.Cleanup(back)
	c.changeTo(0, func(s *corev1.PodSpec) { s.NodeSelector[nowhere] = "true" })
	require.NoError(c.t, c.DeleteAllOf(c.ctx, &coordinationv1.Lease{}, client.InNamespace(c.Namespace),
		client.MatchingLabels{contract.LabelHeartbeat: contract.HeartbeatNode}))

	return back
}

// heartbeat waits for the daemons of all nodes to report.
func (c *cell) heartbeat() {
	c.t.Helper()

	n := c.nodes()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	require.NoError(c.t, c.Wait(ctx, "the heartbeats", func(ctx context.Context) (bool, error) {
		var list coordinationv1.LeaseList
		err := c.List(ctx, &list, client.InNamespace(c.Namespace), client.MatchingLabels{contract.LabelHeartbeat: contract.HeartbeatNode})

		return len(list.Items) >= n, err
	}))
}

// killDaemon kills all nodes' daemons with their workers.
func (c *cell) killDaemon() {
	c.t.Helper()

	none := int64(0)
	require.NoError(c.t, c.DeleteAllOf(c.ctx, &corev1.Pod{}, client.InNamespace(c.Namespace),
		client.MatchingLabels{contract.LabelComponent: contract.ComponentNode}, &client.DeleteAllOfOptions{
			DeleteOptions: client.DeleteOptions{GracePeriodSeconds: &none},
		}))
}

// owner makes a Velero object that looks as if it were being worked on. Velero takes up new ones only.
func (c *cell) owner(o client.Object) metav1.ObjectMeta {
	c.t.Helper()

	o.SetNamespace(c.Namespace)
	o.SetName(c.namespace + "-owner")
	require.NoError(c.t, c.Create(c.ctx, o))
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		assert.NoError(c.t, client.IgnoreNotFound(c.Delete(ctx, o)))
	})

	return metav1.ObjectMeta{Name: o.GetName(), UID: o.GetUID()}
}
