package engine

import (
	"errors"
	"fmt"
)

// Code is the kind of a failure. It is the same word in API reasons, events, logs and tests.
type Code string

// The codes. Each says whether trying again, unchanged, can help.
const (
	// CodeCanceled: the context was done before the work was.
	CodeCanceled Code = "Canceled"
	// CodeStoreUnavailable: the object store could not be reached, or kept failing, for longer than the bound. Retryable.
	CodeStoreUnavailable Code = "StoreUnavailable"
	// CodeStoreStalled: the object store moved no byte for longer than the bound, again and again. Retryable.
	CodeStoreStalled Code = "StoreStalled"
	// CodeStoreLostWrite: the object store acknowledged a blob that it does not have, or not in full. Retryable.
	CodeStoreLostWrite Code = "StoreLostWrite"
	// CodeStoreFull: the object store has no room left, or no more of a quota.
	CodeStoreFull Code = "StoreFull"
	// CodeClockSkewed: the object store refuses the time of requests: a clock is wrong. Retryable.
	CodeClockSkewed Code = "ClockSkewed"
	// CodeStoreReadOnly: a write was asked of a read-only location.
	CodeStoreReadOnly Code = "StoreReadOnly"
	// CodeCredentialsInvalid: the object store refuses the credentials, also after they were read again.
	CodeCredentialsInvalid Code = "CredentialsInvalid"
	// CodeRepositoryNotFound: there is no repository at the path.
	CodeRepositoryNotFound Code = "RepositoryNotFound"
	// CodeRepositoryDamaged: the repository can't be read, or a blob of it is missing or altered.
	CodeRepositoryDamaged Code = "RepositoryDamaged"
	// CodeWrongKey: the repository was made with another master key.
	CodeWrongKey Code = "WrongKey"
	// CodeSnapshotNotFound: the repository has no snapshot of the job.
	CodeSnapshotNotFound Code = "SnapshotNotFound"
	// CodeSourceUnreadable: an entry of the volume could not be read.
	CodeSourceUnreadable Code = "SourceUnreadable"
	// CodeVolumeHung: a call to the volume did not come back, so that its storage seems to be gone. Retryable.
	CodeVolumeHung Code = "VolumeHung"
	// CodeTargetNotEmpty: the volume holds data, and the restore was not told what is to become of it.
	CodeTargetNotEmpty Code = "TargetNotEmpty"
	// CodeTargetFull: the volume has no room for the data.
	CodeTargetFull Code = "TargetFull"
	// CodeTargetUnwritable: an entry could not be written into the volume, or an attribute not set.
	CodeTargetUnwritable Code = "TargetUnwritable"
	// CodeMemoryExceeded: the worker used more memory than its ceiling, and more than others left, and was ended. Retryable:
	// it has written down how far it got, and the next attempt has the memory of all.
	CodeMemoryExceeded Code = "MemoryExceeded"
	// CodeWorkerDied: the worker ended without a result. Retryable.
	CodeWorkerDied Code = "WorkerDied"
	// CodeFenceMissing: the kernel lacks a fence that the settings demand.
	CodeFenceMissing Code = "FenceMissing"
	// CodeInvalidRequest: the request can't be carried out as it stands.
	CodeInvalidRequest Code = "InvalidRequest"
	// CodeInternal: a fault of ours.
	CodeInternal Code = "InternalError"
)

// Retryable reports whether trying again, unchanged, can help.
func (c Code) Retryable() bool {
	switch c {
	case CodeStoreUnavailable, CodeStoreStalled, CodeStoreLostWrite, CodeClockSkewed, CodeWorkerDied, CodeMemoryExceeded, CodeVolumeHung:
		return true
	default:
		return false
	}
}

// Error is a failure with its kind.
type Error struct {
	Code Code
	// Err says what was attempted, and on what.
	Err error
}

// Errorf makes an *Error; the format takes %w.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Error returns the message.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the outermost *Error in err's chain; CodeInternal
// where there is none; and an empty code where err is nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}

	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}

	return CodeInternal
}
