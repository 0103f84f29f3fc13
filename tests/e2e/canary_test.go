//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
	"github.com/estiba-dev/estiba/tests/testkit/stock"
)

// canaries are strings that must be found nowhere, by what they are.
type canaries map[string][]byte

// in returns what is found in a text.
func (c canaries) in(text []byte) (found []string) {
	for what, canary := range c {
		if bytes.Contains(text, canary) {
			found = append(found, what)
		}
	}

	return found
}

// add adds a secret in all the ways in which it may be written.
func (c canaries) add(what string, secret []byte) {
	c[what] = secret
	c[what+" in base64"] = []byte(base64.StdEncoding.EncodeToString(secret))
	c[what+" in hex"] = []byte(hex.EncodeToString(secret))
}

// The master key, the password made of it and the store's key are looked for in all
// that people and programs other than ours get to see.
func TestNoSecretLeavesItsPlace(t *testing.T) {
	c := open(t)
	a, pod := c.app(classDelete, lab.Data{Files: 50, Bytes: 8 << 20, Seed: 43})
	kept := c.keep(a, pod)
	c.backup(c.namespace)

	keys := canaries{}
	c.addKeys(keys)
	c.addPassword(keys)

	all := maps.Clone(keys)
	c.addStoreKey(all)

	watched, backup := c.watch(all), c.namespace+"-all"
	b, err := c.Backup(c.ctx, backup) // Of all namespaces.
	require.NoError(t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)
	c.notInTarball(keys, backup) // Velero's own Secret with the store's key is in there.

	c.deleteNamespace()
	c.restore(backup, backup, "--include-namespaces", c.namespace)
	c.same(kept, a, c.pod(a))
	assert.Positive(t, watched(), "no worker was seen while it ran")
	c.notInOutput(all, backup)
}

func (c *cell) addKeys(to canaries) {
	c.t.Helper()

	encoded := bytes.TrimSpace(c.masterKey().Data[contract.MasterKeySecretKey])
	raw, err := base64.StdEncoding.DecodeString(string(encoded))
	require.NoError(c.t, err)
	to.add("the master key", raw)
	to["the master key as a Secret shows it"] = []byte(base64.StdEncoding.EncodeToString(encoded))

	// The search finds what is there.
	out, err := c.Run(c.ctx, "kubectl", "get", "secret", "-n", c.Namespace, contract.MasterKeySecret, "-o", "yaml")
	require.NoError(c.t, err)
	require.NotEmpty(c.t, to.in([]byte(out)))
}

func (c *cell) addPassword(to canaries) {
	c.t.Helper()

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(c.t, err)
	require.Len(c.t, repositories, 1)

	password, err := stock.Password(c.ctx, c.Lab, repositories[0].Status.ID)
	require.NoError(c.t, err)
	to.add("the repository's password", []byte(password))
}

// addStoreKey adds the secret key of the store.
func (c *cell) addStoreKey(to canaries) {
	c.t.Helper()

	var s corev1.Secret
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: "cloud-credentials"}, &s))

	_, key, found := strings.Cut(string(s.Data["cloud"]), "aws_secret_access_key")
	require.True(c.t, found)

	key, _, _ = strings.Cut(strings.TrimLeft(key, " ="), "\n")
	to.add("the store's secret key", []byte(strings.TrimSpace(key)))
}

// watch looks at the arguments and environments of all processes of Estiba, again and
// again, until the function that it gives is called; that gives how many workers it saw.
func (c *cell) watch(secrets canaries) (seen func() int) {
	c.t.Helper()

	ctx, stop := context.WithCancel(c.ctx)
	workers, done := map[string]bool{}, make(chan struct{})

	go func() {
		defer close(done)

		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()

		for ctx.Err() == nil {
			c.lookAtProcesses(secrets, workers)
			<-tick.C
		}
	}()
	c.t.Cleanup(stop)

	return func() int {
		stop()
		<-done

		return len(workers)
	}
}

func (c *cell) lookAtProcesses(secrets canaries, workers map[string]bool) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		arguments, err := os.ReadFile(path)
		name, _, _ := bytes.Cut(arguments, []byte{0})

		if err != nil || !bytes.Contains([]byte(" mover velero-plugin estiba restore-wait "), append(append([]byte{' '}, filepath.Base(string(name))...), ' ')) {
			continue
		}

		environment, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if err == nil && bytes.Contains(arguments, []byte("\x00"+protocol.CommandRun+"\x00")) {
			workers[path] = true
		}

		assert.Empty(c.t, secrets.in(arguments), "arguments of %s", name)
		assert.Empty(c.t, secrets.in(environment), "environment of %s", name)
	}
}

// notInOutput looks at logs, also those of a backup and a restore of one name, at
// events and at objects but Secrets.
func (c *cell) notInOutput(secrets canaries, name string) {
	c.t.Helper()

	const own = "volumebackups,volumerestores,snapshotdeletions,repositories.estiba.dev"

	commands := [][]string{
		{"kubectl", "get", "events", "-A", "-o", "yaml"},
		{"kubectl", "get", own, "-A", "-o", "yaml"},
		{"kubectl", "get", "backups.velero.io,restores.velero.io,backupstoragelocations.velero.io,configmaps,leases", "-n", c.Namespace, "-o", "yaml"},
		{"kubectl", "get", "pods,deployments,daemonsets,replicasets,controllerrevisions", "-A", "-o", "yaml"},
		{"velero", "-n", c.Namespace, "backup", "logs", name},
		{"velero", "-n", c.Namespace, "restore", "logs", name},
	}

	var pods corev1.PodList
	require.NoError(c.t, c.List(c.ctx, &pods))

	for _, pod := range pods.Items {
		if pod.Namespace == c.Namespace || pod.Namespace == c.namespace {
			commands = append(commands, []string{"kubectl", "logs", "-n", pod.Namespace, pod.Name, "--all-containers", "--prefix"})
		}
	}

	for _, command := range commands {
		out, err := c.Run(c.ctx, command[0], command[1:]...)
		require.NoError(c.t, err)
		assert.Empty(c.t, secrets.in([]byte(out)), strings.Join(command, " "))
	}
}

// notInTarball looks into the tarball of a backup in the bucket.
func (c *cell) notInTarball(secrets canaries, backup string) {
	c.t.Helper()

	f, err := os.Open(filepath.Join(os.Getenv("ESTIBA_CLUSTER_INSIDE"), "s3/velero/backups", backup, backup+".tar.gz"))
	require.NoError(c.t, err)

	defer f.Close()

	unzipped, err := gzip.NewReader(f)
	require.NoError(c.t, err)

	others := 0

	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}

		require.NoError(c.t, err)

		content, err := io.ReadAll(r)
		require.NoError(c.t, err)
		assert.Empty(c.t, secrets.in(content), h.Name)
		assert.NotContains(c.t, h.Name, contract.MasterKeySecret)

		if strings.HasPrefix(h.Name, fmt.Sprintf("resources/secrets/namespaces/%s/", c.Namespace)) {
			others++
		}
	}

	assert.Positive(c.t, others, "other Secrets of the namespace are in there, so it was looked at")
}
