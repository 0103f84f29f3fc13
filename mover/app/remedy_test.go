package app

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

func TestFailuresOfTheRepositoryNameItAndARemedy(t *testing.T) {
	t.Parallel()

	at := v1alpha1.RepositoryReference{BackupStorageLocation: "here", Namespace: "app", ID: "aaaaaaaaaaaaaaaaaaaaaaaaaa"}

	for code, remedy := range map[engine.Code]string{
		engine.CodeStoreUnavailable: "kubectl describe backupstoragelocation here", engine.CodeStoreStalled: "kubectl describe backupstoragelocation here",
		engine.CodeStoreLostWrite: "see to the store", engine.CodeStoreReadOnly: "spec.accessMode", engine.CodeCredentialsInvalid: "spec.credential",
		engine.CodeStoreFull: "frees nothing", engine.CodeClockSkewed: "NTP",
		engine.CodeRepositoryNotFound: "spec.objectStorage", engine.CodeRepositoryDamaged: "another backup",
		engine.CodeWrongKey: contract.MasterKeySecret, engine.CodeSnapshotNotFound: "another backup",
	} {
		text := remedied(code, "it failed", at)
		for _, part := range []string{"it failed (", at.ID, "namespace app", "BackupStorageLocation here", remedy} {
			assert.Contains(t, text, part, code)
		}
	}

	assert.Contains(t, remedied(engine.CodeWrongKey, "it failed", at), "fingerprint of the right key is in plugins/estiba/keys/app/"+at.ID+".json")
	assert.Equal(t, "it failed", remedied(engine.CodeTargetFull, "it failed", at))
}
