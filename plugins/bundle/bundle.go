// Package bundle is what Velero loads: the one list of registered actions and
// the Kubernetes client that they share, which is made when the first of them
// needs it. Velero starts the process anew every 10 s while a backup waits, so
// it must do nothing before it is asked, keep no informers, and write nothing to
// standard output, which belongs to the handshake.
package bundle

import (
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"github.com/vmware-tanzu/velero/pkg/plugin/framework"
	"github.com/vmware-tanzu/velero/pkg/plugin/framework/common"
	"k8s.io/utils/clock"

	"github.com/estiba-dev/estiba/plugins/backup"
	"github.com/estiba-dev/estiba/plugins/remove"
	"github.com/estiba-dev/estiba/plugins/restore"
)

// Actions are all registered actions by kind and name. Velero keeps a backup's
// operations under these names: they must never change.
type Actions struct {
	// Backup are the BackupItemActions (version 2).
	Backup map[string]common.HandlerInitializer
	// Restore are the RestoreItemActions (version 2).
	Restore map[string]common.HandlerInitializer
	// Delete are the DeleteItemActions.
	Delete map[string]common.HandlerInitializer
}

// New returns the actions, which share one client and one memory of the cluster.
func New() Actions {
	c := &connection{}
	b := backup.NewSession(c.client, clock.RealClock{})
	r := restore.NewSession(c.client, clock.RealClock{})
	d := remove.NewSession(c.client, clock.RealClock{})

	return Actions{
		Backup: map[string]common.HandlerInitializer{
			"estiba.dev/backup-pod":    func(log logrus.FieldLogger) (any, error) { return backup.NewPodAction(log, b), nil },
			"estiba.dev/backup-claim":  func(log logrus.FieldLogger) (any, error) { return backup.NewClaimAction(log, b), nil },
			"estiba.dev/backup-volume": func(log logrus.FieldLogger) (any, error) { return backup.NewVolumeAction(log, b), nil },
		},
		Restore: map[string]common.HandlerInitializer{
			"estiba.dev/restore-pod":       func(log logrus.FieldLogger) (any, error) { return restore.NewPodAction(log, r), nil },
			"estiba.dev/restore-claim":     func(log logrus.FieldLogger) (any, error) { return restore.NewClaimAction(log, r), nil },
			"estiba.dev/restore-volume":    func(log logrus.FieldLogger) (any, error) { return restore.NewVolumeAction(log, r), nil },
			"estiba.dev/restore-batch-job": func(log logrus.FieldLogger) (any, error) { return restore.NewAdoptAction(log, r), nil },
			"estiba.dev/restore-job":       func(log logrus.FieldLogger) (any, error) { return restore.NewJobAction(log, r), nil },
		},
		Delete: map[string]common.HandlerInitializer{
			"estiba.dev/delete-pod":   func(log logrus.FieldLogger) (any, error) { return remove.NewPodAction(log, d), nil },
			"estiba.dev/delete-job":   func(log logrus.FieldLogger) (any, error) { return remove.NewJobAction(log, d), nil },
			"estiba.dev/delete-claim": func(log logrus.FieldLogger) (any, error) { return remove.NewClaimAction(log, d), nil },
		},
	}
}

// Names are the names of all actions, sorted.
func (a Actions) Names() []string {
	var names []string
	for _, m := range []map[string]common.HandlerInitializer{a.Backup, a.Restore, a.Delete} {
		names = slices.AppendSeq(names, maps.Keys(m))
	}

	slices.Sort(names)

	return names
}

// Serve answers Velero until it ends the process. Velero hands over the flags
// of its own server; those that the framework doesn't know are ignored.
func Serve(flags *pflag.FlagSet) {
	a := New()

	framework.NewServer().
		BindFlags(flags).
		RegisterBackupItemActionsV2(a.Backup).
		RegisterRestoreItemActionsV2(a.Restore).
		RegisterDeleteItemActions(a.Delete).
		Serve()
}
