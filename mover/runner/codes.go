package runner

import "github.com/estiba-dev/estiba/mover/engine"

// known reports whether the code is one of the engine's. Others become reasons and
// labels of metrics as little as any other text of a worker's choice.
func known(c engine.Code) bool {
	switch c {
	case engine.CodeCanceled, engine.CodeStoreUnavailable, engine.CodeStoreStalled, engine.CodeStoreLostWrite, engine.CodeStoreReadOnly,
		engine.CodeStoreFull, engine.CodeClockSkewed, engine.CodeCredentialsInvalid, engine.CodeRepositoryNotFound, engine.CodeRepositoryDamaged, engine.CodeWrongKey,
		engine.CodeSnapshotNotFound, engine.CodeSourceUnreadable, engine.CodeTargetNotEmpty, engine.CodeTargetFull, engine.CodeTargetUnwritable,
		engine.CodeMemoryExceeded, engine.CodeVolumeHung, engine.CodeWorkerDied, engine.CodeFenceMissing, engine.CodeInvalidRequest, engine.CodeInternal:
		return true
	default:
		return false
	}
}
