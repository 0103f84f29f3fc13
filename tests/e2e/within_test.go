//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/credentials"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
	"github.com/estiba-dev/estiba/tests/testkit/probe"
)

// A program of the tests' is run in the pod of the daemon, as the daemon. It starts a worker by production's own
// runner, which fences itself in by production's own code, on a real volume, with a real broker before the real
// bucket; from there it tries all that it must not be able to do.
func TestWhatAWorkerTriesFromWithin(t *testing.T) {
	c := open(t)
	pod := c.bigPod(83, 1<<20)
	other := c.another("other")

	b, err := c.Backup(c.ctx, c.namespace, "--include-namespaces", c.namespace+","+other.Namespace)
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)

	inside := c.copyInside()
	foreign := c.foreign(other.Namespace)

	for _, verb := range []protocol.Verb{protocol.VerbBackup, protocol.VerbRestore} {
		t.Run(string(verb), func(t *testing.T) {
			c := c.within(t)
			volume := c.volume(pod)
			neighbour := c.toBeTried(volume, other)
			before := c.bucketFiles()

			task := c.probeTask(verb, volume, foreign)
			task.Attempts.Files = append(task.Attempts.Files, inContainer(neighbour))
			found := c.probe(inside, task)

			want := workertest.Expected(verb)

			// The one that is there is among the files.
			for _, attempt := range []string{"read a sibling of the volume", "link a sibling in", "link out to a sibling"} {
				want[attempt] = "ENOENT"
			}

			for _, file := range task.Attempts.Files {
				want["read "+file] = "EACCES"
			}

			assert.Equal(t, want, found.Attempts)
			assert.Empty(t, found.Fences.Missing)
			assert.NotZero(t, found.Fences.LandlockABI)
			c.answeredOwnOnly(verb, found.Answers)
			assert.Equal(t, before, c.bucketFiles(), "nothing was written or deleted")
		})
	}
}

// copyInside copies the program into a volume of the daemon's pod of this node.
func (c *cell) copyInside() *corev1.Pod {
	c.t.Helper()

	here, err := os.Hostname()
	require.NoError(c.t, err)

	pods, err := c.ReadyPods(c.ctx, c.Namespace, map[string]string{contract.LabelComponent: contract.ComponentNode}, c.nodes())
	require.NoError(c.t, err)

	for i := range pods {
		if pods[i].Spec.NodeName != here {
			continue
		}

		cache, err := c.VolumeDir(c.ctx, &pods[i], "cache")
		require.NoError(c.t, err)

		dir := filepath.Join(cache, "estiba-inside")
		require.NoError(c.t, os.MkdirAll(dir, 0o755))
		c.t.Cleanup(func() { assert.NoError(c.t, os.RemoveAll(dir)) })

		program, err := os.ReadFile(filepath.Join("_output", "inside"))
		require.NoError(c.t, err)
		require.NoError(c.t, os.WriteFile(filepath.Join(dir, "inside"), program, 0o755))

		return &pods[i]
	}

	require.Fail(c.t, "no daemon on this node")

	return nil
}

// inContainer returns a path of the kubelet's folder as the daemon's container has it.
func inContainer(path string) string {
	return strings.Replace(path, "/var/lib/kubelet/pods", "/host_pods", 1)
}

// toBeTried puts into a volume what package workertest tries, with the handle of a file of the other
// application's volume, and returns that file. It opens the handle itself: to whom has the capability, it is open.
func (c *cell) toBeTried(volume string, other *lab.App) (neighbour string) {
	c.t.Helper()

	for _, name := range []string{"secret", "own", "victim", "attributed", "new", "null", workertest.HandleFile} {
		require.NoError(c.t, os.RemoveAll(filepath.Join(volume, name)))
	}

	for _, name := range []string{"secret", "own", "victim", "attributed"} {
		require.NoError(c.t, os.WriteFile(filepath.Join(volume, name), []byte("x"), 0o600))
	}

	require.NoError(c.t, os.Chown(filepath.Join(volume, "secret"), 4711, 4711))
	require.NoError(c.t, os.Chmod(filepath.Join(volume, "secret"), 0))

	theirs := &corev1.PodList{}
	require.NoError(c.t, c.List(c.ctx, theirs, client.InNamespace(other.Namespace)))
	require.Len(c.t, theirs.Items, 1)

	neighbour = filepath.Join(c.volumes(other, &theirs.Items[0])["data"], "neighbour")
	require.NoError(c.t, os.WriteFile(neighbour, []byte("of another tenant"), 0o600))

	handle, err := workertest.WriteHandle(volume, neighbour)
	require.NoError(c.t, err)

	dir, err := os.Open(volume)
	require.NoError(c.t, err)

	defer dir.Close()

	fd, err := unix.OpenByHandleAt(int(dir.Fd()), handle, unix.O_RDONLY|unix.O_CLOEXEC)
	require.NoError(c.t, err)

	opened := os.NewFile(uintptr(fd), neighbour)
	defer opened.Close()

	content := make([]byte, 100)
	n, err := opened.Read(content)
	require.NoError(c.t, err)
	require.Equal(c.t, "of another tenant", string(content[:n]), "a volume's descriptor and a handle lead into another volume")

	return neighbour
}

// foreign returns paths of the bucket that are not the repository's, relative to it. All of them are there.
func (c *cell) foreign(otherNamespace string) []string {
	c.t.Helper()

	ours, theirs := c.repositoryOf(c.namespace), c.repositoryOf(otherNamespace)
	key, err := contract.KeyPath(c.namespace, ours.Status.ID)
	require.NoError(c.t, err)

	bucket := bucketDir()
	paths := []string{filepath.Join(theirs.Status.Path, "kopia.repository"), key, contract.BackupMarkerPath(c.namespace)}

	for i, path := range paths {
		require.FileExists(c.t, filepath.Join(bucket, path))

		paths[i], err = filepath.Rel(ours.Status.Path, path)
		require.NoError(c.t, err)
	}

	return paths
}

func (c *cell) repositoryOf(namespace string) v1alpha1.Repository {
	c.t.Helper()

	repositories, err := c.Repositories(c.ctx, namespace)
	require.NoError(c.t, err)
	require.Len(c.t, repositories, 1)

	return repositories[0]
}

// bucketDir is where the store of the local cluster keeps the bucket's objects as files.
func bucketDir() string { return filepath.Join(os.Getenv("ESTIBA_CLUSTER_INSIDE"), "s3/velero") }

// bucketFiles returns the sizes of all files of the bucket.
func (c *cell) bucketFiles() map[string]int64 {
	c.t.Helper()

	sizes := map[string]int64{}
	require.NoError(c.t, filepath.WalkDir(bucketDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		info, err := d.Info()
		sizes[path] = info.Size()

		return err
	}))

	return sizes
}

const ownBlob = "kopia.repository"

// probeTask makes what the program is asked for. The worker is to be refused each path, however it asks.
func (c *cell) probeTask(verb protocol.Verb, volume string, foreign []string) probe.Task {
	c.t.Helper()

	var (
		location velerov1.BackupStorageLocation
		secret   corev1.Secret
	)

	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: "default"}, &location))
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: "cloud-credentials"}, &secret))

	at, err := credentials.FromLocation(c.ctx, &location, credentials.Surroundings{Fallback: credentials.DefaultSecret()})
	require.NoError(c.t, err)
	profile, err := credentials.ParseAWS(secret.Data["cloud"], "")
	require.NoError(c.t, err)

	requests := []string{
		"GET /blobs/" + ownBlob + "?offset=0&length=-1", "GET /metadata/" + ownBlob, "GET /blobs",
		"PUT /blobs/..%2Fprobe", "PUT /blobs/.probe", "GET /blobs?prefix=..", "GET /", "GET /blobs/", "POST /capacity",
	}
	if verb == protocol.VerbRestore {
		requests = append(requests, "PUT /blobs/probe", "DELETE /blobs/"+ownBlob)
	}

	for _, path := range foreign {
		once := url.PathEscape(path)
		for _, form := range []string{path, once, url.PathEscape(once), "%2F" + once} {
			requests = append(requests, "GET /blobs/"+form+"?offset=0&length=-1", "GET /metadata/"+form, "PUT /blobs/"+form, "DELETE /blobs/"+form)
		}

		requests = append(requests, "GET /blobs?prefix="+url.QueryEscape(path))
	}

	return probe.Task{
		Verb: verb, Volume: inContainer(volume), CacheDir: "/cache/estiba-inside/" + string(verb),
		Store: at.Settings, Credentials: profile.Credentials, Folder: c.repositoryOf(c.namespace).Status.Path,
		Attempts: probe.Attempts{
			Requests: requests,
			Files:    []string{tokenFile, "/proc/1/environ", "/host_pods", "/cache", "/mover", "/cache/estiba-inside"},
		},
	}
}

// answeredOwnOnly requires the broker to have answered what concerns its repository, and to have refused all else.
func (c *cell) answeredOwnOnly(verb protocol.Verb, answers map[string]probe.Answer) {
	c.t.Helper()

	for request, answer := range answers {
		want := http.StatusBadRequest

		switch method, target, _ := strings.Cut(request, " "); {
		case method == http.MethodGet && (strings.Contains(target, "/"+ownBlob) && !strings.Contains(target, "..") || target == "/blobs"):
			want = http.StatusOK
		case verb == protocol.VerbRestore && (target == "/blobs/probe" || target == "/blobs/"+ownBlob):
			want = http.StatusForbidden
		}

		assert.Equal(c.t, want, answer.Status, "%s: %s", request, answer.Body)
	}

	for line := range bytes.Lines(answers["GET /blobs"].Body) {
		var blob struct{ Blob *struct{ ID string } }
		if json.Unmarshal(line, &blob) == nil && blob.Blob != nil {
			assert.FileExists(c.t, filepath.Join(c.repositoryDir(), blob.Blob.ID))
		}
	}

	assert.Contains(c.t, string(answers["GET /blobs"].Body), ownBlob)
}

// probe runs the program in the daemon's pod.
func (c *cell) probe(pod *corev1.Pod, task probe.Task) probe.Findings {
	c.t.Helper()

	in, err := json.Marshal(task)
	require.NoError(c.t, err)

	var out, said bytes.Buffer

	cmd := exec.CommandContext(c.ctx, "kubectl", "exec", "-i", "-n", pod.Namespace, pod.Name, "--", "/cache/estiba-inside/inside", "probe")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &said
	require.NoError(c.t, cmd.Run(), said.String())

	var found probe.Findings

	require.NoError(c.t, json.Unmarshal(out.Bytes(), &found), out.String())

	return found
}
