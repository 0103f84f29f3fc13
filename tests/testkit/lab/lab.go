// Package lab drives the local cluster the way a user does: with kubectl's
// objects and the velero command line. The demo and the end-to-end tests share
// it. It runs inside the cluster's namespaces (`cluster exec`) and must not
// reach into Estiba's own packages but for the kinds and the contract.
package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/tests/cluster"
)

// Lab is one running local cluster.
type Lab struct {
	client.Client

	// Namespace that Velero and Estiba are installed in.
	Namespace string

	kubeconfig string
	// state is the cluster's state folder.
	state string
}

// Open connects to the cluster that the environment names: KUBECONFIG and VELERO_NAMESPACE.
func Open() (*Lab, error) {
	return connect(&Lab{
		Namespace: cmp.Or(os.Getenv("VELERO_NAMESPACE"), "velero"), kubeconfig: os.Getenv("KUBECONFIG"), state: os.Getenv(clusterVariable),
	})
}

// OpenOther connects to another cluster by its state folder: one that uses the
// bucket of the cluster that this runs in, and so can be reached from it.
func OpenOther(state string) (*Lab, error) {
	c, err := cluster.Load(state)
	if err != nil {
		return nil, err
	}

	return connect(&Lab{Namespace: c.Velero.Namespace, kubeconfig: c.Kubeconfig(), state: state})
}

func connect(l *Lab) (*Lab, error) {
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read KUBECONFIG (this runs inside the local cluster: go run ./tests/cluster/cmd/cluster exec -- COMMAND): %w", err)
	}

	config.QPS, config.Burst = 100, 200

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, velerov1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}

	l.Client, err = client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}

	return l, nil
}

// Run runs a command for this cluster and gives what it printed on both of its outputs.
func (l *Lab) Run(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer

	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.kubeconfig, "VELERO_NAMESPACE="+l.Namespace)
	cmd.Stdout, cmd.Stderr = &out, &out

	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out.String())
	}

	return out.String(), nil
}

// Velero runs the velero command line against the lab's Velero.
func (l *Lab) Velero(ctx context.Context, args ...string) (string, error) {
	return l.Run(ctx, "velero", append([]string{"--namespace", l.Namespace}, args...)...)
}

// Troubles returns the warnings and errors in the log of a backup or a restore.
func (l *Lab) Troubles(ctx context.Context, kind, name string) string {
	out, err := l.Velero(ctx, kind, "logs", name)
	if err != nil {
		return err.Error()
	}

	var troubles strings.Builder

	for line := range strings.Lines(out) {
		if strings.Contains(line, "level=error") || strings.Contains(line, "level=warning") {
			troubles.WriteString(line)
		}
	}

	return troubles.String()
}

// Backup takes a Velero backup and waits for its end. It gives the Backup as it
// then is, whatever its phase.
func (l *Lab) Backup(ctx context.Context, name string, args ...string) (*velerov1.Backup, error) {
	args = append([]string{"backup", "create", name, "--snapshot-volumes=false"}, args...)
	if _, err := l.Velero(ctx, args...); err != nil {
		return nil, err
	}

	return l.WaitBackup(ctx, name)
}

// WaitBackup waits for a backup's final phase.
func (l *Lab) WaitBackup(ctx context.Context, name string) (*velerov1.Backup, error) {
	var b velerov1.Backup

	err := l.Wait(ctx, "backup "+name+" to end", func(ctx context.Context) (bool, error) {
		if err := l.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: name}, &b); err != nil {
			return false, err
		}

		switch b.Status.Phase {
		case velerov1.BackupPhaseCompleted, velerov1.BackupPhaseFailed, velerov1.BackupPhasePartiallyFailed, velerov1.BackupPhaseFailedValidation:
			return true, nil
		default:
			return false, nil
		}
	})

	return &b, err
}

// Restore starts a Velero restore and does not wait.
func (l *Lab) Restore(ctx context.Context, name, backup string, args ...string) error {
	_, err := l.Velero(ctx, append([]string{"restore", "create", name, "--from-backup", backup}, args...)...)

	return err
}

// WaitRestore waits for a restore's final phase.
func (l *Lab) WaitRestore(ctx context.Context, name string) (*velerov1.Restore, error) {
	var r velerov1.Restore

	err := l.Wait(ctx, "restore "+name+" to end", func(ctx context.Context) (bool, error) {
		if err := l.Get(ctx, client.ObjectKey{Namespace: l.Namespace, Name: name}, &r); err != nil {
			return false, err
		}

		switch r.Status.Phase {
		case velerov1.RestorePhaseCompleted, velerov1.RestorePhaseFailed, velerov1.RestorePhasePartiallyFailed, velerov1.RestorePhaseFailedValidation:
			return true, nil
		default:
			return false, nil
		}
	})

	return &r, err
}

// Wait asks done again and again until it says yes, fails, or ctx ends.
func (l *Lab) Wait(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()

	for {
		ok, err := done(ctx)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}

		if ok {
			return nil
		}

		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// CreateNamespace makes a namespace.
func (l *Lab) CreateNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{}
	ns.Name = name

	return l.Create(ctx, ns)
}

// DeleteNamespace deletes a namespace and waits until nothing of it is left.
func (l *Lab) DeleteNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{}
	ns.Name = name

	if err := l.Delete(ctx, ns); client.IgnoreNotFound(err) != nil {
		return err
	}

	return l.Wait(ctx, "namespace "+name+" to be gone", func(ctx context.Context) (bool, error) {
		err := l.Get(ctx, client.ObjectKey{Name: name}, ns)

		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}
