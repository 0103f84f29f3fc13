//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// slow bounds the daemon's transfers so that a job of a few times as much is surely caught in the middle.
const slow = "1Mi"

func TestWithoutADaemonABackupSaysSoAndKeepsTheObjects(t *testing.T) {
	c := open(t)
	a, original := c.app(classDelete, lab.Data{Files: 10, Bytes: 1 << 16, Seed: 20})
	c.withoutDaemon()

	start := time.Now()
	logs := c.partial(c.namespace)
	assert.Less(t, time.Since(start), time.Minute)

	for _, volume := range []string{"data", "scratch"} {
		assert.Contains(t, logs, "volume "+volume+" is not backed up")
	}

	assert.Contains(t, logs, "no node daemon of Estiba has reported within")
	assert.Contains(t, logs, "kubectl -n "+c.Namespace+" get daemonsets,pods -l "+contract.LabelComponent+"="+contract.ComponentNode)

	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)

	// Its data was not in the backup, so that there is nothing to wait for, but something to be said.
	pod := c.pod(a)
	assert.Empty(t, pod.Spec.InitContainers)

	describe, err := c.Velero(c.ctx, "restore", "describe", c.namespace)
	require.NoError(t, err)

	_, warnings, _ := strings.Cut(describe, "Warnings:")
	for _, volume := range []string{"data", "scratch"} {
		assert.Contains(t, warnings, "volume-data-not-in-backup.estiba.dev/namespaces/"+c.namespace+"/pod-"+original.Name+"-volume-"+volume)
	}
}

func TestAnotherMasterKeyIsRefusedByName(t *testing.T) {
	c := open(t)
	c.app(classDelete, lab.Data{Files: 10, Bytes: 1 << 16, Seed: 21})
	c.backup(c.namespace)

	right := c.masterKey()
	t.Cleanup(func() { c.putKey(right.Data) })

	fresh := c.another("new")

	c.putKey(map[string][]byte{contract.MasterKeySecretKey: []byte("9YcVhB3pW2v7mK1sQ0tXzR5nL8dJfG4uEaIoT6yHbCw=")})

	logs := c.partial(c.namespace + "-old")
	assert.Contains(t, logs, "WrongKey")
	assert.Contains(t, logs, contract.MasterKeySecret)

	logs = c.partialOf(fresh.Namespace, fresh.Namespace)
	assert.Contains(t, logs, "WrongKey")
	assert.Contains(t, logs, "put the exported Secret of that key back")
	c.repository(fresh.Namespace, "WrongKey")

	t.Run("and so is text", func(t *testing.T) {
		c.putKey(map[string][]byte{contract.MasterKeySecretKey: []byte("static-passw0rd")})

		logs := c.partial(c.namespace + "-text")
		assert.Contains(t, logs, "MasterKeyInvalid")
		assert.NotContains(t, logs, "static-passw0rd")
	})

	t.Run("and a missing one is never made anew where there are repositories", func(t *testing.T) {
		require.NoError(t, c.Delete(c.ctx, c.masterKey()))

		assert.Contains(t, c.partial(c.namespace+"-none"), "MasterKeyMissing")

		third := c.another("third")
		logs := c.partialOf(third.Namespace, third.Namespace)
		assert.Contains(t, logs, "MasterKeyMissing")
		assert.Contains(t, logs, "kubectl apply -f FILE")
		c.repository(third.Namespace, "MasterKeyMissing")

		err := c.Get(c.ctx, client.ObjectKeyFromObject(right), &corev1.Secret{})
		assert.True(t, apierrors.IsNotFound(err), "%v", err)
	})

	t.Run("and with the right one back all goes on", func(t *testing.T) {
		c.putKey(right.Data)
		c.backup(c.namespace + "-again")
		c.completed(c.namespace+"-again", 2)

		c.repository(fresh.Namespace, "RepositoryReady")

		b, err := c.Backup(c.ctx, fresh.Namespace+"-again", "--include-namespaces", fresh.Namespace)
		require.NoError(t, err)
		c.requireBackup(b, velerov1.BackupPhaseCompleted)
	})
}

func TestACancelledBackupEndsSoonAndTheNextOneGoesOn(t *testing.T) {
	c := open(t)
	pod := c.bigPod(22, 80<<20)
	kept := c.keepVolume(pod)
	lift := c.limit("8Mi")
	first := c.namespace + "-1"

	c.start(first)
	job := c.running(first, "data")
	require.NoError(t, c.Wait(c.ctx, "something to be uploaded", func(context.Context) (bool, error) {
		packs, err := filepath.Glob(filepath.Join(c.repositoryDir(), "p*"))

		return len(packs) > 0, err
	}))

	start := time.Now()
	c.cancel(job)
	job = c.ended(first, "data")
	assert.Less(t, time.Since(start), 30*time.Second)
	assert.Equal(t, v1alpha1.PhaseCanceled, job.Status.Phase)
	assert.Equal(t, "CancelRequested", job.Status.Reason)
	assert.Contains(t, c.endsPartial(first), "CancelRequested")

	lift()
	c.backup(c.namespace)
	summary := c.completed(c.namespace, 1)[0].Status.Summary
	assert.Less(t, summary.StoredBytes, summary.Bytes*9/10, "what the cancelled backup has uploaded is not uploaded again")

	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)
	c.sameDir(kept, c.volume(c.podAgain()))
}

func TestARestoreThatFailsKeepsTheApplicationFromStarting(t *testing.T) {
	t.Parallel()

	for name, damage := range map[string]struct {
		blobs  string
		reason string
	}{
		"the repository is gone": {"*", "RepositoryNotFound"},
		"the contents are gone":  {"p*", "RepositoryDamaged"},
		"the snapshots are gone": {"[qx]*", "SnapshotNotFound"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := open(t)
			c.app(classDelete, lab.Data{Files: 50, Bytes: 4 << 20, Seed: 23})
			c.backup(c.namespace)
			c.removeBlobs(damage.blobs)
			c.deleteNamespace()

			require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace))

			r, err := c.WaitRestore(c.ctx, c.namespace)
			require.NoError(t, err)
			require.Equal(t, velerov1.RestorePhasePartiallyFailed, r.Status.Phase)
			assert.Contains(t, c.told(c.namespace), damage.reason)

			jobs, err := c.VolumeRestores(c.ctx, c.namespace)
			require.NoError(t, err)
			require.Len(t, jobs, 2)

			message := c.gateMessage()
			assert.Contains(t, message, damage.reason)
			assert.Regexp(t, jobs[0].Name+"|"+jobs[1].Name, message)

			for _, job := range jobs {
				assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase)
				assert.Equal(t, damage.reason, job.Status.Reason, job.Status.Message)
			}
		})
	}
}

func TestAPodThatIsDeletedGetsItsVolumeBackAtOnceAndItsClaimIsBackedUpAllTheSame(t *testing.T) {
	c := open(t)
	kept := c.keepVolume(c.bigPod(24, 24<<20))
	lift := c.limit(slow)
	c.start(c.namespace)
	c.running(c.namespace, "data")

	start := time.Now()
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = c.namespace, "big"
	require.NoError(t, c.Delete(c.ctx, pod))
	require.NoError(t, c.Wait(c.ctx, "the pod to be gone", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod)

		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
	assert.Less(t, time.Since(start), 30*time.Second)

	lift()

	b, err := c.WaitBackup(c.ctx, c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)

	job := c.completed(c.namespace, 1)[0]
	assert.Equal(t, contract.StagingPodName(job.Name), job.Status.Pod.Name)
	c.event(c.Namespace, "VolumeBackup", job.Name, "PodLost")

	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)
	c.sameDir(kept, c.volume(c.podAgain()))
}

func TestABoundOfVelerosThatHasPassedIsNamed(t *testing.T) {
	c := open(t)
	c.bigPod(26, 48<<20)
	c.limit(slow)

	_, err := c.Velero(c.ctx, "backup", "create", c.namespace, "--include-namespaces", c.namespace, "--snapshot-volumes=false", "--item-operation-timeout", "2s")
	require.NoError(t, err)

	job := c.ended(c.namespace, "data")
	assert.Equal(t, v1alpha1.PhaseCanceled, job.Status.Phase)
	assert.Equal(t, "OperationTimedOut", job.Status.Reason)
	assert.Contains(t, job.Status.Message, "no longer than 2s")
	assert.Contains(t, job.Status.Message, "velero backup create --item-operation-timeout")
}

func TestABackupIsCompletedRightAfterItsLocationWasMoved(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.app(classDelete, lab.Data{Files: 10, Bytes: 1 << 16, Seed: 27})

	location := &velerov1.BackupStorageLocation{}
	require.NoError(t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: "default"}, location))

	location = &velerov1.BackupStorageLocation{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.namespace}, Spec: *location.Spec.DeepCopy()}

	// Below a folder that Velero knows, or it would take the default location, whose bucket this is, for a stranger's.
	below := path.Join(location.Spec.ObjectStorage.Prefix, "plugins", c.namespace)
	location.Spec.Default, location.Spec.ObjectStorage.Prefix = false, below+"/a"

	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		// Without its location it would be one that no rotation of the key ever gets to.
		left := jobs.NewRepository(c.Namespace, location.Name, c.namespace)
		assert.NoError(t, client.IgnoreNotFound(c.Delete(ctx, left)))
	})
	c.create(location)

	for i, prefix := range []string{below + "/a", below + "/b"} {
		c.eventually("the location to be available at "+prefix, func(ctx context.Context) (bool, error) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(location), location); err != nil {
				return false, err
			}

			if location.Spec.ObjectStorage.Prefix != prefix {
				location.Spec.ObjectStorage.Prefix = prefix

				return false, client.IgnoreNotFound(c.Update(ctx, location))
			}

			return location.Status.Phase == velerov1.BackupStorageLocationPhaseAvailable, nil
		})

		name := fmt.Sprintf("%s-%d", c.namespace, i)
		c.backup(name, "--storage-location", location.Name)
		c.completed(name, 2)
	}
}

func TestADaemonKilledInTheMiddleGoesOn(t *testing.T) {
	c := open(t)
	kept := c.keepVolume(c.bigPod(25, 24<<20))
	lift := c.limit("4Mi")

	c.start(c.namespace)
	c.running(c.namespace, "data")
	c.killDaemon()

	b, err := c.WaitBackup(c.ctx, c.namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)
	c.completed(c.namespace, 1)
	c.deleteNamespace()

	require.NoError(t, c.Restore(c.ctx, c.namespace, c.namespace))
	c.restoring(c.namespace)
	c.killDaemon()
	c.restored(c.namespace)
	lift()
	c.sameDir(kept, c.volume(c.podAgain()))
}

func TestEventsMetricsAndProbesAnswer(t *testing.T) {
	t.Parallel()

	c := open(t)
	c.app(classDelete, lab.Data{Files: 10, Bytes: 1 << 16, Seed: 26})
	c.backup(c.namespace)

	for _, job := range c.completed(c.namespace, 2) {
		c.event(c.Namespace, "VolumeBackup", job.Name, job.Status.Reason)
		c.event(c.namespace, "Pod", job.Spec.Volume.Pod.Name, job.Status.Reason)

		if job.Spec.Volume.Claim != nil {
			c.event(c.namespace, "PersistentVolumeClaim", job.Spec.Volume.Claim.Name, job.Status.Reason)
		}
	}

	all := ""

	for component, n := range map[string]int{contract.ComponentNode: c.nodes(), contract.ComponentController: 1} {
		pods, err := c.ReadyPods(c.ctx, c.Namespace, map[string]string{contract.LabelComponent: component}, n)
		require.NoError(t, err)

		for _, pod := range pods {
			for _, path := range []string{":8086/healthz", ":8086/readyz"} {
				status, _ := c.http(pod.Status.PodIP + path)
				assert.Equal(t, http.StatusOK, status, pod.Name+path)
			}

			status, body := c.http(pod.Status.PodIP + ":8085/metrics")
			assert.Equal(t, http.StatusOK, status)

			all += body
		}
	}

	assert.Contains(t, all, `estiba_jobs_total{kind="VolumeBackup"`)
	assert.Contains(t, all, c.namespace)
}

func TestAStoreThatIsAwayIsNamed(t *testing.T) {
	c := open(t)

	location := &velerov1.BackupStorageLocation{}
	location.Namespace, location.Name = c.Namespace, c.namespace
	require.NoError(t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: "default"}, location))
	location.ResourceVersion, location.UID, location.Name = "", "", c.namespace
	location.Spec.Default = false
	location.Status = velerov1.BackupStorageLocationStatus{}
	// Nothing listens there.
	location.Spec.Config["s3Url"] = "http://127.0.0.1:1"
	require.NoError(t, c.Create(c.ctx, location))

	repo := &v1alpha1.Repository{Spec: v1alpha1.RepositorySpec{BackupStorageLocation: location.Name, Namespace: c.namespace}}
	repo.Namespace, repo.Name = c.Namespace, c.namespace
	require.NoError(t, c.Create(c.ctx, repo))

	t.Cleanup(func() {
		assert.NoError(t, c.Delete(c.ctx, repo))
		assert.NoError(t, client.IgnoreNotFound(c.Delete(c.ctx, location)))
	})

	message := c.repository(c.namespace, "StoreUnavailable")
	assert.Contains(t, message, location.Name)
	assert.Contains(t, message, "127.0.0.1:1")

	require.NoError(t, c.Delete(c.ctx, location))
	assert.Contains(t, c.repository(c.namespace, "LocationNotFound"), location.Name)
}

// gateMessage returns what the gate of the namespace's pod ended with, and requires the application not to have begun.
func (c *cell) gateMessage() string {
	c.t.Helper()

	message := ""

	require.NoError(c.t, c.Wait(c.ctx, "the gate to end with a message", func(ctx context.Context) (bool, error) {
		pod, err := c.GatedPod(ctx, c.namespace)
		if err != nil {
			return false, err
		}

		for _, app := range pod.Status.ContainerStatuses {
			if app.State.Waiting == nil || app.Started != nil && *app.Started {
				return false, fmt.Errorf("container %s has begun: %v", app.Name, app.State)
			}
		}

		for _, s := range pod.Status.InitContainerStatuses {
			for _, state := range []corev1.ContainerState{s.State, s.LastTerminationState} {
				if state.Terminated != nil && s.Name == contract.GateContainer {
					if state.Terminated.ExitCode == 0 {
						return false, fmt.Errorf("the gate has opened")
					}

					message = state.Terminated.Message
				}
			}
		}

		return message != "", nil
	}))

	return message
}

// bigPod makes a pod with a claim "data" of that many bytes.
func (c *cell) bigPod(seed uint64, bytes int64) *corev1.Pod {
	c.t.Helper()
	require.NoError(c.t, c.CreateNamespace(c.ctx, c.namespace))
	require.NoError(c.t, c.Create(c.ctx, lab.Claim(c.namespace, "data", classDelete)))
	c.createPod("big", []string{"data"}, nil)

	pod := c.podAgain()
	require.NoError(c.t, lab.FillVolume(c.volume(pod), lab.Data{Files: 800, Bytes: bytes, Seed: seed}))

	return pod
}

// podAgain waits for the pod that createPod has made, or a restore.
func (c *cell) podAgain() *corev1.Pod {
	c.t.Helper()

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": "pod"}, 1)
	require.NoError(c.t, err)

	return &pods[0]
}

// volume returns the folder of the pod's first volume.
func (c *cell) volume(pod *corev1.Pod) string {
	c.t.Helper()

	dir, err := c.VolumeDir(c.ctx, pod, pod.Spec.Volumes[0].Name)
	require.NoError(c.t, err)

	return dir
}

// keepVolume copies the pod's first volume for a later comparison.
func (c *cell) keepVolume(pod *corev1.Pod) string {
	c.t.Helper()

	kept := filepath.Join(c.temp, "kept")
	require.NoError(c.t, c.Keep(c.ctx, c.volume(pod), kept))

	return kept
}

func (c *cell) http(address string) (int, string) {
	c.t.Helper()

	req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+address, nil)
	require.NoError(c.t, err)

	res, err := http.DefaultClient.Do(req)
	require.NoError(c.t, err)

	body, err := io.ReadAll(res.Body)
	require.NoError(c.t, err)
	require.NoError(c.t, res.Body.Close())

	return res.StatusCode, string(body)
}
