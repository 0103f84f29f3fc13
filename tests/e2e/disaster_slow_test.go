//go:build e2e && slow

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

const (
	// offsite is what the second cluster calls the location that the first one calls default.
	offsite = "offsite"
	moved   = "moved"
	// little is far less than the application's data, which is some 30 MiB.
	little = 1 << 20
)

// rehearsal is docs/disaster-recovery.md, done on a second, empty cluster. The first one goes on meanwhile; the two
// share the bucket alone.
type rehearsal struct {
	t           *testing.T
	here, there *cell
	app         *lab.App
	// key is the file of the exported master key.
	key string
	// repository is the ID of the one of the application's namespace.
	repository string
	// kept are copies of the application's volumes, by the backup of which that was the state.
	kept map[string]map[string]string
	// jobs are those of each backup; each has one snapshot.
	jobs map[string][]string
}

func TestSlowASecondClusterTakesOverAndTheFirstGoesOn(t *testing.T) {
	here := open(t)

	// A cluster is started, and Velero looks into its bucket once a minute only: that takes more than other tests.
	ctx, cancel := context.WithTimeout(context.Background(), 6*patience)
	t.Cleanup(cancel)

	here.ctx = ctx
	r := &rehearsal{t: t, here: here, kept: map[string]map[string]string{}, jobs: map[string][]string{}}
	start := time.Now()

	for _, step := range []struct {
		what string
		do   func()
	}{
		{"an application is backed up, and the key exported", r.begin},
		{"a second cluster gets a read-only location of another name", r.second},
		{"without the key, and with another one, nothing is restored and nothing written", r.withoutTheKey},
		{"with the key, all comes back, and nothing is written", r.readOnly},
		{"the second cluster backs up into the same repository", r.takeOver},
		{"the first cluster goes on", r.goOn},
		{"each deletes its own backups, and what it found", r.deletions},
		{"what was copied below another prefix is found there", r.anotherPrefix},
	} {
		step.do()
		t.Logf("[story] %4.0f s: %s", time.Since(start).Seconds(), step.what)
	}
}

func (r *rehearsal) name(suffix string) string { return r.here.namespace + "-" + suffix }

func (r *rehearsal) begin() {
	c := r.here
	r.app, _ = c.app(classDelete, lab.Data{Files: 300, Bytes: 30 << 20, Seed: 90})
	r.settled(c)
	r.backup(c, "first", "default")

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(r.t, err)
	require.Len(r.t, repositories, 1)
	r.repository = repositories[0].Status.ID

	r.key = filepath.Join(c.temp, "estiba-master-key.yaml")
	c.estiba("key", "export", "-n", c.Namespace, "-o", r.key)
}

// settled waits until all that is in the application's volumes is old enough for backups
// after the next one to take it over without reading it.
func (r *rehearsal) settled(c *cell) {
	r.t.Helper()

	var youngest time.Time

	for _, dir := range c.volumes(r.appOf(c), c.pod(r.appOf(c))) {
		require.NoError(r.t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err := errors.Join(err, unix.Lstat(path, &st)); err != nil {
				return err
			}

			if at := time.Unix(st.Ctim.Unix()); at.After(youngest) {
				youngest = at
			}

			return nil
		}))
	}

	const minute = 61 * time.Second

	select {
	case <-time.After(time.Until(youngest.Add(minute))):
	case <-c.ctx.Done():
		require.NoError(r.t, c.ctx.Err())
	}
}

// backup backs the application up, keeps a copy and remembers the jobs, which it gives.
func (r *rehearsal) backup(c *cell, suffix, location string) []v1alpha1.VolumeBackup {
	r.t.Helper()

	name := r.name(suffix)
	r.kept[suffix] = r.keep(c)
	c.backup(name, "--storage-location", location)

	jobs := c.completed(name, 2)
	for _, job := range jobs {
		r.jobs[suffix] = append(r.jobs[suffix], job.Name)
	}

	return jobs
}

func (r *rehearsal) appOf(c *cell) *lab.App {
	return &lab.App{Lab: c.Lab, Namespace: c.namespace, Class: r.app.Class}
}

func (r *rehearsal) keep(c *cell) map[string]string {
	part := *c
	part.temp = r.t.TempDir()

	return part.keep(r.appOf(c), c.pod(r.appOf(c)))
}

// increment changes one file, and backs up again: only that may be read.
func (r *rehearsal) increment(c *cell, suffix, location string) {
	r.t.Helper()

	dirs := c.volumes(r.appOf(c), c.pod(r.appOf(c)))
	require.NoError(r.t, os.WriteFile(filepath.Join(dirs["data"], "changed"), []byte("before "+suffix), 0o600))

	for _, job := range r.backup(c, suffix, location) {
		assert.True(r.t, job.Status.Incremental)
		assert.Less(r.t, job.Status.Summary.ReadBytes, int64(1000))
	}
}

// restored deletes the application where there is one, restores a backup and compares.
func (r *rehearsal) restored(c *cell, name, suffix string) {
	r.t.Helper()
	c.deleteNamespace()
	c.restore(r.name(name), r.name(suffix))
	c.same(r.kept[suffix], r.appOf(c), c.pod(r.appOf(c)))
}

func (r *rehearsal) second() {
	r.there = r.here.beside()
	r.there.locate(offsite, r.here.bucket("default"), "--access-mode", "ReadOnly")
	r.there.synced(r.name("first"))
}

func (r *rehearsal) withoutTheKey() {
	all := r.here.bucket("default")
	before := all.objects()

	r.refused("nokey", "MasterKeyMissing")
	r.there.putKey(map[string][]byte{contract.MasterKeySecretKey: []byte("9YcVhB3pW2v7mK1sQ0tXzR5nL8dJfG4uEaIoT6yHbCw=")})
	r.refused("otherkey", "WrongKey")
	assert.Empty(r.t, all.written(before))
}

// refused restores what can't be read, and requires the job to say why.
func (r *rehearsal) refused(name, reason string) {
	r.t.Helper()

	c := r.there
	require.NoError(r.t, c.Restore(c.ctx, r.name(name), r.name("first")))

	restore, err := c.WaitRestore(c.ctx, r.name(name))
	require.NoError(r.t, err)
	assert.Equal(r.t, velerov1.RestorePhasePartiallyFailed, restore.Status.Phase)

	job := c.jobOf(r.name(name), "data")
	assert.Equal(r.t, reason, job.Status.Reason)
	assert.Contains(r.t, job.Status.Message, contract.MasterKeySecret)
	assert.Contains(r.t, job.Status.Message, "fingerprint")
	r.t.Logf("%s: %s", reason, job.Status.Message)
	c.deleteNamespace()
}

func (r *rehearsal) readOnly() {
	c, all := r.there, r.here.bucket("default")
	before := all.objects()

	c.applyKey(r.key)
	r.restored(c, "rehearsal", "first")
	assert.Empty(r.t, all.written(before))

	b, err := c.Backup(c.ctx, r.name("refused"), "--include-namespaces", c.namespace, "--storage-location", offsite)
	require.NoError(r.t, err)
	assert.Equal(r.t, velerov1.BackupPhaseFailedValidation, b.Status.Phase)
	assert.Contains(r.t, strings.Join(b.Status.ValidationErrors, " "), "read-only mode")
	require.NoError(r.t, c.Delete(c.ctx, b))

	_, err = c.Velero(c.ctx, "backup", "delete", r.name("first"), "--confirm")
	require.NoError(r.t, err)
	assert.Contains(r.t, c.deletionRefused(r.name("first")), "read-only mode")
	assert.Empty(r.t, all.written(before))
}

func (r *rehearsal) takeOver() {
	c := r.there
	_, err := c.Run(c.ctx, "kubectl", "patch", "backupstoragelocation", offsite, "-n", c.Namespace, "--type=merge", "-p", `{"spec":{"accessMode":"ReadWrite"}}`)
	require.NoError(r.t, err)

	r.settled(c)

	for _, job := range r.backup(c, "there1", offsite) {
		// The volumes are others: all is read, and what is in the repository is not stored again.
		assert.False(r.t, job.Status.Incremental)
		assert.Less(r.t, job.Status.Summary.StoredBytes, int64(little))
	}

	r.increment(c, "there2", offsite)
	assert.Equal(r.t, r.repository, c.repositoryIn(offsite).Status.ID)
}

func (r *rehearsal) goOn() {
	r.increment(r.here, "second", "default")
	r.restored(r.here, "again", "second")
}

func (r *rehearsal) deletions() {
	here, there := r.here, r.there
	r.remain("first", "second", "there1", "there2")
	r.delete(there, "there1")
	r.remain("first", "second", "there2")
	r.delete(here, "first")
	r.remain("second", "there2")

	// A backup that was found in the bucket is everybody's.
	there.synced(r.name("second"))
	r.delete(there, "second")
	r.remain("there2")
	here.unsynced(r.name("second"))

	here.synced(r.name("there2"))
	r.restored(here, "home", "there2")
}

func (r *rehearsal) delete(c *cell, suffix string) {
	r.t.Helper()

	_, err := c.Velero(c.ctx, "backup", "delete", r.name(suffix), "--confirm")
	require.NoError(r.t, err)
	c.waitGone(r.name(suffix))
}

// remain requires the snapshots of these backups to be in the repository, and no others.
func (r *rehearsal) remain(backups ...string) {
	r.t.Helper()

	var want []string
	for _, b := range backups {
		want = append(want, r.jobs[b]...)
	}

	assert.ElementsMatch(r.t, want, r.here.snapshots())
}

func (r *rehearsal) anotherPrefix() {
	c, all := r.there, r.here.bucket("default")
	// Velero wants no other folders in a bucket than its own: a copy goes into another bucket.
	copied := all.copyTo(r.here.namespace, "below/"+moved+"/")
	before := all.objects()

	_, err := c.Velero(c.ctx, "backup-location", "delete", offsite, "--confirm")
	require.NoError(r.t, err)
	c.locate(moved, copied)
	c.synced(r.name("there2"))
	r.restored(c, "moved", "there2")

	for _, job := range r.backup(c, "there3", moved) {
		assert.Less(r.t, job.Status.Summary.StoredBytes, int64(little))
	}

	assert.Equal(r.t, r.repository, c.repositoryIn(moved).Status.ID)
	assert.Empty(r.t, all.written(before))
}

// beside starts a second cluster, of one node, with the bucket of the first and nothing else of it, and returns the same
// namespace there. It goes when the test ends.
func (c *cell) beside() *cell {
	c.t.Helper()

	first := os.Getenv("ESTIBA_CLUSTER_INSIDE")
	state := first + "-second"
	run := func(args ...string) error {
		_, err := c.Run(context.Background(), "env", append([]string{"ESTIBA_CLUSTER_DIR=" + state, "cluster"}, args...)...)

		return err
	}

	c.t.Cleanup(func() { assert.NoError(c.t, run("down")) })
	// A run that was killed may have left one behind.
	require.NoError(c.t, run("down"))
	require.NoError(c.t, run("up", "--bucket-of", first, "--velero-namespace", "velero"))
	require.NoError(c.t, run("install-estiba", "examples/install", filepath.Join("_output", "estiba-"+runtime.GOARCH+".tar")))

	l, err := lab.OpenOther(state)
	require.NoError(c.t, err)

	other := &cell{Lab: l, t: c.t, ctx: c.ctx, namespace: c.namespace, temp: c.temp}

	c.t.Cleanup(func() {
		if c.t.Failed() {
			other.report()
		}
	})

	return other
}

// locate makes a storage location that points to a bucket.
func (c *cell) locate(name string, b bucket, args ...string) {
	c.t.Helper()

	config := "s3ForcePathStyle=true,region=us-east-1,s3Url=" + b.client.EndpointURL().String()
	_, err := c.Velero(c.ctx, append([]string{
		"backup-location", "create", name, "--provider", "aws", "--bucket", b.name, "--prefix", strings.TrimSuffix(b.prefix, "/"), "--config", config,
	}, args...)...)
	require.NoError(c.t, err)
}

// applyKey puts an exported key into Velero's namespace, in the place of another.
func (c *cell) applyKey(file string) {
	c.t.Helper()

	estiba := filepath.Join("_output", runtime.GOARCH, "estiba")
	_, err := c.Run(c.ctx, "sh", "-c", fmt.Sprintf("%s key export --key-file %s -n %s | kubectl replace --force -f -", estiba, file, c.Namespace))
	require.NoError(c.t, err)
}

// synced waits until Velero has found a backup in the bucket; it looks once a minute.
func (c *cell) synced(backup string) {
	c.t.Helper()
	c.eventually("Velero to find backup "+backup+" in the bucket", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: backup}, &velerov1.Backup{})

		return err == nil, client.IgnoreNotFound(err)
	})
}

// unsynced waits until Velero has seen that a backup is gone from the bucket.
func (c *cell) unsynced(backup string) {
	c.t.Helper()
	c.eventually("Velero to forget backup "+backup, func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: backup}, &velerov1.Backup{})

		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

// deletionRefused waits for the end of the deletion of a backup, and returns its errors.
func (c *cell) deletionRefused(backup string) string {
	c.t.Helper()

	var said string

	c.eventually("the deletion of "+backup+" to be refused", func(ctx context.Context) (bool, error) {
		var list velerov1.DeleteBackupRequestList
		if err := c.List(ctx, &list, client.InNamespace(c.Namespace)); err != nil {
			return false, err
		}

		for _, d := range list.Items {
			if d.Spec.BackupName == backup && d.Status.Phase == velerov1.DeleteBackupRequestPhaseProcessed {
				said = strings.Join(d.Status.Errors, " ")
			}
		}

		return said != "", nil
	})

	return said
}

// repositoryIn returns the repository of the cell's namespace in a location.
func (c *cell) repositoryIn(location string) v1alpha1.Repository {
	c.t.Helper()

	repositories, err := c.Repositories(c.ctx, c.namespace)
	require.NoError(c.t, err)

	for _, r := range repositories {
		if r.Spec.BackupStorageLocation == location {
			return r
		}
	}

	require.Fail(c.t, "no repository", "of namespace %s in location %s", c.namespace, location)

	return v1alpha1.Repository{}
}
