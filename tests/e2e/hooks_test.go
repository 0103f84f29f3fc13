//go:build e2e && slow

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// plain is how many pods without hooks there are: one more than the daemon has slots.
const plain = 5

// The hooks of the pods leave files in their volume "notes", which is not backed up; the times of these files say
// when they ran. All of it runs under one limit, because setting that takes as long as a backup.
func TestSlowHooks(t *testing.T) {
	c, db := open(t), open(t)

	// What begins takes a while, and the change of the daemon does, too.
	db.createPostgreSQL()
	require.NoError(t, c.CreateNamespace(c.ctx, c.namespace))

	for i := range plain {
		c.createNoted(fmt.Sprintf("plain-%d", i), "together", nil)
	}

	c.createNoted("quiesced", "together", hooks("touch /notes/frozen", "touch /notes/thawed"))
	c.createNoted("spec", "alone", nil)
	c.limit(slow, "--download-limit=0", fmt.Sprintf("--slots=%d", plain-1))

	for i := range plain {
		c.fill(fmt.Sprintf("plain-%d", i), 3<<20)
	}

	c.fill("quiesced", 24<<20)
	c.fill("spec", 5<<20)

	t.Run("of a database keep it frozen until its volume is moved", func(t *testing.T) {
		db.within(t).databaseIsFrozen()
	})
	t.Run("of the Backup hold like those of the pod", func(t *testing.T) {
		c.within(t).hooksOfTheBackup()
	})
	t.Run("quiesce a pod that waits for nobody, and not beyond the bound, while others move together", func(t *testing.T) {
		c.within(t).frozenGoesFirst()
	})
	t.Run("thaw a pod whose job is cancelled", func(t *testing.T) {
		c := c.within(t)
		name := c.namespace + "-cancelled"
		n := c.notes("quiesced")

		c.object(name, map[string]string{"app": "quiesced"}, nil, nil)
		c.cancel(c.running(name, "quiesced"))
		c.endsPartial(name)

		job := c.ended(name, "quiesced")
		assert.Equal(t, v1alpha1.PhaseCanceled, job.Status.Phase, job.Status.Message)
		n.around(job)
	})
	t.Run("thaw a pod whose job fails", func(t *testing.T) {
		c := c.within(t)
		name := c.namespace + "-failed"
		n := c.notes("quiesced")

		c.removeBlobs("*")
		c.object(name, map[string]string{"app": "quiesced"}, nil, nil)
		c.endsPartial(name)

		job := c.ended(name, "quiesced")
		assert.Equal(t, v1alpha1.PhaseFailed, job.Status.Phase, job.Status.Message)
		assert.Equal(t, "RepositoryNotFound", job.Status.Reason, job.Status.Message)
		n.around(job)
	})
}

// frozenGoesFirst backs up pods without hooks, more of them than there are slots, and one with hooks, which is too
// large for the bound.
func (c *cell) frozenGoesFirst() {
	c.t.Helper()

	name := c.namespace + "-together"
	n := c.notes("quiesced")

	c.object(name, map[string]string{"set": "together"}, map[string]string{contract.AnnotationFreezeTimeout: "10s"}, nil)

	logs := c.endsPartial(name)
	assert.Contains(c.t, logs, "not moved within 10s, the bound for a quiesced application, and are cancelled")

	jobs, err := c.VolumeBackups(c.ctx, name)
	require.NoError(c.t, err)
	require.Len(c.t, jobs, plain+1)
	slices.SortFunc(jobs, func(a, b v1alpha1.VolumeBackup) int {
		return cmp.Or(compare(a.Spec.Options.Frozen, b.Spec.Options.Frozen), a.Status.StartTimestamp.Compare(b.Status.StartTimestamp.Time))
	})

	together, last, frozen := jobs[:plain-1], jobs[plain-1], jobs[plain]
	firstEnd := slices.MinFunc(together, func(a, b v1alpha1.VolumeBackup) int {
		return a.Status.CompletionTimestamp.Compare(b.Status.CompletionTimestamp.Time)
	}).Status.CompletionTimestamp

	for _, job := range jobs[:plain] {
		assert.Equal(c.t, v1alpha1.PhaseCompleted, job.Status.Phase, job.Status.Message)
	}

	assert.True(c.t, together[plain-2].Status.StartTimestamp.Before(firstEnd), "the volumes of pods without hooks are moved at the same time")
	assert.False(c.t, last.Status.StartTimestamp.Before(firstEnd), "one more than there are slots waits")

	assert.Equal(c.t, "quiesced", frozen.Spec.Volume.Name)
	assert.Equal(c.t, "FreezeExceeded", frozen.Status.Reason, frozen.Status.Message)
	assert.True(c.t, frozen.Status.StartTimestamp.Before(firstEnd), "a frozen one does not")

	n.around(&frozen)

	took := n.time("thawed").Sub(n.time("frozen"))
	assert.GreaterOrEqual(c.t, took, 10*time.Second)
	assert.Less(c.t, took, 45*time.Second, "the bound, and what a cancelled worker may take")
}

// compare orders false before true.
func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func (c *cell) hooksOfTheBackup() {
	c.t.Helper()

	name := c.namespace + "-spec"
	n := c.notes("spec")
	run := func(command string) []velerov1.BackupResourceHook {
		return []velerov1.BackupResourceHook{{Exec: &velerov1.ExecHook{Command: []string{"sh", "-c", command}}}}
	}
	selector := map[string]string{"app": "spec"}

	c.object(name, selector, nil, []velerov1.BackupResourceHookSpec{{
		Name: "quiesce", IncludedNamespaces: []string{c.namespace}, LabelSelector: &metav1.LabelSelector{MatchLabels: selector},
		PreHooks: run("touch /notes/frozen"), PostHooks: run("touch /notes/thawed"),
	}})

	b, err := c.WaitBackup(c.ctx, name)
	require.NoError(c.t, err)
	c.requireBackup(b, velerov1.BackupPhaseCompleted)

	job := &c.completed(name, 1)[0]
	n.around(job)
	assert.Greater(c.t, n.time("thawed").Sub(n.time("frozen")), 2*time.Second, "at this rate the upload takes longer")
}

// The database's own processes stop where they are, while a transaction holds off whoever writes: what is on disk then
// is what the kernel has, and the rows that are counted are all that was ever committed.
const (
	freeze = `psql -qAt -v ON_ERROR_STOP=1 <<'END'
BEGIN;
LOCK TABLE entries IN SHARE MODE;
SELECT count(*) FROM entries \g /notes/committed
\! for twice in 1 2; do kill -STOP $(pidof postgres); done; touch /notes/frozen; kill -KILL $PPID
END
test -e /notes/frozen`
	thaw = `touch /notes/thawed; kill -CONT $(pidof postgres)`

	// What the former container's server has left is of no process in this one.
	serve = `test -e $PGDATA/PG_VERSION || initdb --data-checksums --auth=trust --username=postgres || exit 1
rm -f $PGDATA/postmaster.pid
postgres -k /tmp -h '' &
wait`
	write = `psql -qc 'CREATE TABLE entries (id serial PRIMARY KEY, sum text NOT NULL)'
printf '%s \\watch 0.01\n' "INSERT INTO entries (id, sum) SELECT n, md5(n::text) FROM nextval('entries_id_seq') n" | psql -q > /notes/writer 2>&1 &`
	count  = `psql -qAtc 'SELECT count(*) FROM entries'`
	verify = `psql -qAtc 'SELECT count(*), max(id), count(*) FILTER (WHERE sum <> md5(id::text)) FROM entries' && pg_amcheck --install-missing --heapallindexed postgres`
)

// databaseIsFrozen backs a database up that is being written to, and restores it.
func (c *cell) databaseIsFrozen() {
	c.t.Helper()

	pod := c.postgreSQL()
	n := c.notes(pod.Name)

	c.shell(pod.Name, write)
	c.written(pod.Name, 50)
	c.backup(c.namespace)

	job := &c.completed(c.namespace, 1)[0]
	assert.True(c.t, job.Spec.Options.Frozen)
	n.around(job)
	assert.Greater(c.t, n.time("thawed").Sub(n.time("frozen")), 2*time.Second, "at this rate the upload takes longer")

	text, err := os.ReadFile(filepath.Join(n.dir, "committed"))
	require.NoError(c.t, err)

	var committed int

	_, err = fmt.Sscan(string(text), &committed)
	require.NoError(c.t, err)
	require.GreaterOrEqual(c.t, committed, 50)
	c.written(pod.Name, committed+50)

	c.deleteNamespace()
	c.restore(c.namespace, c.namespace)

	pod = c.postgreSQL()
	assert.Zero(c.t, pod.Status.ContainerStatuses[0].RestartCount)
	assert.Equal(c.t, fmt.Sprintf("%d|%d|0\n", committed, committed), c.shell(pod.Name, verify))
}

// written waits until the database has that many rows.
func (c *cell) written(pod string, rows int) {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()

	require.NoError(c.t, c.Wait(ctx, fmt.Sprintf("%d rows to be written", rows), func(context.Context) (bool, error) {
		var n int

		_, err := fmt.Sscan(c.shell(pod, count), &n)

		return n >= rows, err
	}))
}

// shell runs commands in the cell's pod and gives what they print.
func (c *cell) shell(pod, commands string) string {
	c.t.Helper()

	out, err := c.Run(c.ctx, "kubectl", "exec", "--namespace", c.namespace, pod, "--container", "app", "--", "sh", "-c", commands)
	require.NoError(c.t, err)

	return out
}

func (c *cell) createPostgreSQL() {
	c.t.Helper()
	require.NoError(c.t, c.CreateNamespace(c.ctx, c.namespace))
	require.NoError(c.t, c.Create(c.ctx, lab.Claim(c.namespace, "data", classDelete)))

	spec := lab.PodSpec([]string{"data"}, []string{"notes"})
	app := &spec.Containers[0]
	app.Image, app.Command = lab.PostgreSQLImage, []string{"sh", "-c", serve}
	app.Env = []corev1.EnvVar{{Name: "PGDATA", Value: "/data/pg"}, {Name: "PGHOST", Value: "/tmp"}, {Name: "PGUSER", Value: "postgres"}}
	app.ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"pg_isready"}}},
		PeriodSeconds: 1,
	}

	c.createWith("postgres", "database", "data", hooks(freeze, thaw), spec)
}

func (c *cell) postgreSQL() *corev1.Pod {
	c.t.Helper()

	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()

	pods, err := c.ReadyPods(ctx, c.namespace, map[string]string{"app": "postgres"}, 1)
	require.NoError(c.t, err, "where its image is missing: go run ./tests/cluster/cmd/cluster load-postgresql")

	return &pods[0]
}

// createNoted makes a pod of a set, with a volume of its own name that is backed up, and one for notes.
func (c *cell) createNoted(name, set string, annotations map[string]string) {
	c.t.Helper()
	c.createWith(name, set, name, annotations, lab.PodSpec(nil, []string{name, "notes"}))
}

func (c *cell) createWith(name, set, volume string, annotations map[string]string, spec corev1.PodSpec) {
	c.t.Helper()

	pod := &corev1.Pod{Spec: spec}
	pod.Namespace, pod.Name = c.namespace, name
	pod.Labels = map[string]string{"app": name, "set": set}
	pod.Annotations = map[string]string{contract.AnnotationBackupVolumes: volume}

	for key, value := range annotations {
		pod.Annotations[key] = value
	}

	require.NoError(c.t, c.Create(c.ctx, pod))
}

// hooks returns the annotations that have Velero run commands around a pod's backup.
func hooks(pre, post string) map[string]string {
	annotations := map[string]string{}

	for when, commands := range map[string]string{"pre": pre, "post": post} {
		// An error is impossible for strings.
		text, _ := json.Marshal([]string{"sh", "-c", commands})
		annotations[when+".hook.backup.velero.io/command"] = string(text)
	}

	return annotations
}

// fill writes bytes into the volume that has the name of its pod.
func (c *cell) fill(pod string, bytes int64) {
	c.t.Helper()

	dir, err := c.VolumeDir(c.ctx, c.named(pod), pod)
	require.NoError(c.t, err)
	require.NoError(c.t, lab.FillVolume(dir, lab.Data{Files: 10, Bytes: bytes, Seed: uint64(pod[len(pod)-1]) + uint64(bytes)}))
}

func (c *cell) named(pod string) *corev1.Pod {
	c.t.Helper()

	pods, err := c.ReadyPods(c.ctx, c.namespace, map[string]string{"app": pod}, 1)
	require.NoError(c.t, err)

	return &pods[0]
}

// object starts a backup of pods of the cell's namespace by making the object: hooks have no flag of the command line.
func (c *cell) object(name string, pods, annotations map[string]string, hooks []velerov1.BackupResourceHookSpec) {
	c.t.Helper()

	no := false
	b := &velerov1.Backup{Spec: velerov1.BackupSpec{
		IncludedNamespaces: []string{c.namespace},
		LabelSelector:      &metav1.LabelSelector{MatchLabels: pods},
		SnapshotVolumes:    &no,
		Hooks:              velerov1.BackupHooks{Resources: hooks},
	}}
	b.Namespace, b.Name, b.Annotations = c.Namespace, name, annotations
	require.NoError(c.t, c.Create(c.ctx, b))
}

// notes are what the hooks of a pod leave behind.
type notes struct {
	t   *testing.T
	dir string
}

// notes returns the pod's notes, without those of an earlier backup.
func (c *cell) notes(pod string) notes {
	c.t.Helper()

	dir, err := c.VolumeDir(c.ctx, c.named(pod), "notes")
	require.NoError(c.t, err)

	for _, note := range []string{"frozen", "thawed"} {
		if err := os.Remove(filepath.Join(dir, note)); !errors.Is(err, fs.ErrNotExist) {
			require.NoError(c.t, err)
		}
	}

	return notes{c.t, dir}
}

// time says when a hook ran.
func (n notes) time(note string) time.Time {
	n.t.Helper()

	info, err := os.Stat(filepath.Join(n.dir, note))
	require.NoError(n.t, err, "the hook has run")

	return info.ModTime()
}

// around requires the hooks to have run before the job was made, and soon after it ended. The job's times are whole seconds.
func (n notes) around(job *v1alpha1.VolumeBackup) {
	n.t.Helper()

	thawed, end := n.time("thawed"), job.Status.CompletionTimestamp.Time
	assert.False(n.t, n.time("frozen").Truncate(time.Second).After(job.CreationTimestamp.Time), "frozen before the job was asked for")
	assert.False(n.t, thawed.Before(end), "thawed at %s, before the job ended at %s", thawed, end)
	assert.Less(n.t, thawed.Sub(end), 15*time.Second, "thawed soon after the job ended")
}
