package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

// story is one run of the demo. Each step may use what the ones before it found.
type story struct {
	lab *lab.Lab
	app *lab.App
	out io.Writer

	run  string // tells this run's backups from those of other runs
	temp string
	pod  *corev1.Pod
	kept map[string]string
	rows []row
}

type row struct {
	what, result string
	took         time.Duration
}

type step struct {
	title string
	do    func(context.Context) (string, error)
}

func (s *story) tell(ctx context.Context) error {
	temp, err := os.MkdirTemp("", "estiba-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)

	s.temp = temp
	s.run = "demo-" + time.Now().UTC().Format("150405")

	steps := []step{
		{"An application is running: a Deployment with a claim and an emptyDir", s.deploy},
		{"Its first backup: velero backup create", s.firstBackup},
		{"What Velero says about it: velero backup describe --details", s.describe},
		{"Disaster: the namespace is deleted, and its volumes with it", s.disaster},
		{"velero restore create, and what the waiting pod says meanwhile", s.restore},
		{"Compare with the copy from before the disaster: rsync, then sha256", s.compare},
		{"A second backup, of the restored volumes", s.secondBackup},
		{"A third backup, after ten files changed", s.thirdBackup},
		{"velero backup delete: the snapshots go, too", s.forget},
		{"Clean up", s.cleanUp},
	}

	for i, st := range steps {
		fmt.Fprintf(s.out, "\n%d. %s\n", i+1, st.title)

		start := time.Now()

		result, err := st.do(ctx)
		if err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, st.title, err)
		}

		s.rows = append(s.rows, row{st.title, result, time.Since(start)})
	}

	return s.table()
}

func (s *story) table() error {
	fmt.Fprint(s.out, "\nWhat was done, and how long it took\n\n")

	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for i, r := range s.rows {
		title, _, _ := strings.Cut(r.what, ":")
		fmt.Fprintf(w, "  %d\t%s\t%.1f s\t%s\n", i+1, title, r.took.Seconds(), r.result)
	}

	if err := w.Flush(); err != nil {
		return err
	}

	fmt.Fprintf(s.out, `
Where to look next
  go run ./tests/cluster/cmd/cluster exec -- bash        a shell with kubectl and velero
  kubectl -n %[1]s get vb,vr,sd,erepo          Estiba's jobs and repositories
  README.md                                              how to install it beside your own Velero
  make cluster-down                                      stop and remove the local cluster
`, s.lab.Namespace)

	return nil
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, "   "+format+"\n", args...) }

func (s *story) deploy(ctx context.Context) (string, error) {
	if err := s.lab.DeleteNamespace(ctx, namespace); err != nil {
		return "", err
	}

	pod, err := s.app.Deploy(ctx)
	if err != nil {
		return "", err
	}

	s.pod = pod

	dirs, err := s.app.Volumes(ctx, pod)
	if err != nil {
		return "", err
	}

	// Content of its own for each run: nothing of it is in the repository from an earlier one.
	seed := uint64(time.Now().UnixNano())
	if err := lab.FillVolume(dirs["data"], lab.Data{Files: 4000, Bytes: 200 << 20, Seed: seed}); err != nil {
		return "", err
	}

	if err := lab.FillVolume(dirs["scratch"], lab.Data{Files: 100, Bytes: 4 << 20, Seed: seed + 1}); err != nil {
		return "", err
	}

	s.kept = map[string]string{}
	for name, dir := range dirs {
		s.kept[name] = filepath.Join(s.temp, name)
		if err := s.lab.Keep(ctx, dir, s.kept[name]); err != nil {
			return "", err
		}
	}

	s.say("pod %s/%s, annotation %s: %q", pod.Namespace, pod.Name, contract.AnnotationBackupVolumes, pod.Annotations[contract.AnnotationBackupVolumes])
	s.say("data: 200 MiB in 4,000 files and some odd ones; scratch: 4 MiB in 100")

	return "4,100 files and some", nil
}

func (s *story) backup(ctx context.Context, name string) (string, error) {
	s.say("$ velero backup create %s --include-namespaces %s --snapshot-volumes=false", name, namespace)

	b, err := s.lab.Backup(ctx, name, "--include-namespaces", namespace)
	if err != nil {
		return "", err
	}

	if b.Status.Phase != velerov1.BackupPhaseCompleted {
		return "", fmt.Errorf("backup %s is %s\n%s", name, b.Status.Phase, s.lab.Troubles(ctx, "backup", name))
	}

	jobs, err := s.lab.VolumeBackups(ctx, name)
	if err != nil {
		return "", err
	}

	if len(jobs) != 2 {
		return "", fmt.Errorf("backup %s has %d VolumeBackups, expected 2", name, len(jobs))
	}

	var read, stored, all int64

	for _, job := range jobs {
		sum := job.Status.Summary
		s.say("%-8s %s: %d files, %s; read %s, stored %s", job.Spec.Volume.Name, job.Status.Phase, sum.Files, size(sum.Bytes), size(sum.ReadBytes), size(sum.StoredBytes))

		if len(sum.Omissions) > 0 {
			return "", fmt.Errorf("volume %s: not everything could be kept: %v", job.Spec.Volume.Name, sum.Omissions)
		}

		read, stored, all = read+sum.ReadBytes, stored+sum.StoredBytes, all+sum.Bytes
	}

	took := b.Status.CompletionTimestamp.Sub(b.Status.StartTimestamp.Time)

	return fmt.Sprintf("%s by Velero's clock; of %s read %s, stored %s", took, size(all), size(read), size(stored)), nil
}

func (s *story) firstBackup(ctx context.Context) (string, error) { return s.backup(ctx, s.run+"-1") }

func (s *story) describe(ctx context.Context) (string, error) {
	out, err := s.lab.Velero(ctx, "backup", "describe", s.run+"-1", "--details")
	if err != nil {
		return "", err
	}

	_, operations, found := strings.Cut(out, "Backup Item Operations:")
	if !found {
		return "", errors.New("velero backup describe shows no item operations:\n" + out)
	}

	operations, _, _ = strings.Cut(operations, "\nResource List:")
	for _, line := range strings.Split("Backup Item Operations:"+strings.TrimRight(operations, "\n"), "\n") {
		s.say("| %s", line)
	}

	return "one operation an item, with sizes", nil
}

func (s *story) disaster(ctx context.Context) (string, error) {
	s.say("$ kubectl delete namespace %s", namespace)

	return "gone", s.lab.DeleteNamespace(ctx, namespace)
}

func (s *story) restore(ctx context.Context) (string, error) {
	name := s.run + "-restore"
	s.say("$ velero restore create %s --from-backup %s-1", name, s.run)

	start := time.Now()
	if err := s.lab.Restore(ctx, name, s.run+"-1"); err != nil {
		return "", err
	}

	if err := s.follow(ctx); err != nil {
		return "", err
	}

	pod, err := s.app.Pod(ctx)
	if err != nil {
		return "", err
	}

	s.pod = pod
	ready := time.Since(start)
	s.say("pod %s is ready again after %.1f s", pod.Name, ready.Seconds())

	r, err := s.lab.WaitRestore(ctx, name)
	if err != nil {
		return "", err
	}

	if r.Status.Phase != velerov1.RestorePhaseCompleted {
		return "", fmt.Errorf("restore %s is %s\n%s", name, r.Status.Phase, s.lab.Troubles(ctx, "restore", name))
	}

	s.say("restore %s is %s", name, r.Status.Phase)

	return fmt.Sprintf("application ready after %.1f s", ready.Seconds()), nil
}

// follow prints the log of the gate's container as it grows, until the container ends.
func (s *story) follow(ctx context.Context) error {
	pod, err := s.lab.GatedPod(ctx, namespace)
	if err != nil {
		return err
	}

	s.say("$ kubectl -n %s logs -f %s -c %s", namespace, pod.Name, contract.GateContainer)

	out, err := s.lab.Run(ctx, "kubectl", "-n", namespace, "logs", "-f", pod.Name, "-c", contract.GateContainer)
	for _, line := range strings.Split(strings.TrimRight(out, "\n"), "\n") {
		s.say("| %s", line)
	}

	return err
}

func (s *story) compare(ctx context.Context) (string, error) {
	dirs, err := s.app.Volumes(ctx, s.pod)
	if err != nil {
		return "", err
	}

	files := 0

	for _, name := range []string{"data", "scratch"} {
		diff, err := s.lab.Differences(ctx, s.kept[name], dirs[name])
		if err != nil {
			return "", err
		}

		s.say("$ rsync -niaHAXc --delete --numeric-ids --modify-window=-1 BEFORE/%s/ AFTER/%s/", name, name)

		if diff != "" {
			return "", fmt.Errorf("volume %s differs from what it was:\n%s", name, diff)
		}

		before, n, err := lab.Digest(s.kept[name])
		if err != nil {
			return "", err
		}

		after, _, err := lab.Digest(dirs[name])
		if err != nil {
			return "", err
		}

		if before != after {
			return "", fmt.Errorf("volume %s: sha256 over all files is %s, was %s", name, after, before)
		}

		s.say("  no difference; sha256 over all %d files is the same: %s…", n, after[:16])

		files += n
	}

	return fmt.Sprintf("%d files, no difference", files), nil
}

func (s *story) secondBackup(ctx context.Context) (string, error) {
	s.say("the claim is bound to a new volume now, so all is read and hashed again; what is stored is little")

	return s.backup(ctx, s.run+"-2")
}

func (s *story) thirdBackup(ctx context.Context) (string, error) {
	dirs, err := s.app.Volumes(ctx, s.pod)
	if err != nil {
		return "", err
	}

	for i := range 10 {
		path := filepath.Join(dirs["data"], "folder-000", fmt.Sprintf("file-%05d", i))
		if err := os.WriteFile(path, []byte(time.Now().String()), 0o600); err != nil {
			return "", err
		}
	}

	return s.backup(ctx, s.run+"-3")
}

func (s *story) cleanUp(ctx context.Context) (string, error) {
	if err := s.lab.DeleteNamespace(ctx, namespace); err != nil {
		return "", err
	}

	return "namespace and backups removed", nil
}
