package bundle

import (
	"testing"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vmware-tanzu/velero/pkg/plugin/framework/common"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	biav2 "github.com/vmware-tanzu/velero/pkg/plugin/velero/backupitemaction/v2"
	riav2 "github.com/vmware-tanzu/velero/pkg/plugin/velero/restoreitemaction/v2"
)

// Velero keeps the operations of a backup under these names, in the object store.
func TestNamesNeverChange(t *testing.T) {
	assert.Equal(t, []string{
		"estiba.dev/backup-claim", "estiba.dev/backup-pod", "estiba.dev/backup-volume",
		"estiba.dev/delete-claim", "estiba.dev/delete-job", "estiba.dev/delete-pod",
		"estiba.dev/restore-batch-job", "estiba.dev/restore-claim", "estiba.dev/restore-job", "estiba.dev/restore-pod", "estiba.dev/restore-volume",
	}, New().Names())
}

func TestEachActionIsWhatItIsRegisteredAs(t *testing.T) {
	log, _ := logtest.NewNullLogger()
	made := func(init common.HandlerInitializer) any {
		a, err := init(log)
		require.NoError(t, err)

		return a
	}

	for name, init := range New().Backup {
		a, ok := made(init).(biav2.BackupItemAction)
		require.True(t, ok, name)
		assert.Equal(t, name, a.Name())
		require.NoError(t, common.ValidatePluginName(name, nil))
	}

	for name, init := range New().Restore {
		a, ok := made(init).(riav2.RestoreItemAction)
		require.True(t, ok, name)
		assert.Equal(t, name, a.Name())
		require.NoError(t, common.ValidatePluginName(name, nil))
	}

	for name, init := range New().Delete {
		_, ok := made(init).(velero.DeleteItemAction)
		require.True(t, ok, name)
		require.NoError(t, common.ValidatePluginName(name, nil))
	}
}

func TestTheMapperKnowsEveryKindThatIsRegistered(t *testing.T) {
	m := newMapper()

	s, err := newScheme()
	require.NoError(t, err)

	for gvk := range s.AllKnownTypes() {
		if gvk.Group == "estiba.dev" && gvk.Version == "v1alpha1" {
			switch gvk.Kind {
			case "VolumeBackup", "VolumeRestore", "SnapshotDeletion", "Repository":
				mapping, err := m.RESTMapping(gvk.GroupKind(), gvk.Version)
				require.NoError(t, err)
				assert.Contains(t, []string{"volumebackups", "volumerestores", "snapshotdeletions", "repositories"}, mapping.Resource.Resource)
			}
		}
	}
}
