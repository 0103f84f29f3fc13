package engine

import "time"

// ExistingData is what a restore does about data that it finds in the volume.
type ExistingData string

// What there is to do about it. The zero value is ExistingRefuse: nobody's data is
// written over without being told to.
const (
	// ExistingRefuse restores into an empty volume only. An empty folder LostAndFound is no data.
	ExistingRefuse ExistingData = "refuse"
	// ExistingOverwrite replaces what bears a name that the snapshot has, and leaves the rest.
	ExistingOverwrite ExistingData = "overwrite"
	// ExistingMirror removes, too, what the snapshot does not have. It stops where another
	// file system is mounted, and leaves the folder LostAndFound itself.
	ExistingMirror ExistingData = "mirror"
	// ExistingKeep leaves a volume that holds data as it is, and restores into an empty one.
	// What an earlier restore may have left half done is refused.
	ExistingKeep ExistingData = "keep"
)

// LostAndFound is the folder that file systems make in their root for fsck.
const LostAndFound = "lost+found"

// MaxFound is how many entries an error about a volume that is not empty names.
const MaxFound = 5

// MissingSnapshot is what a restore does where the repository has no finished
// snapshot of the job. One that is there and not as expected is not missing.
type MissingSnapshot string

// What there is to do about it. The zero value is MissingFail.
const (
	// MissingFail fails with CodeSnapshotNotFound.
	MissingFail MissingSnapshot = "fail"
	// MissingEmpty writes and removes nothing.
	MissingEmpty MissingSnapshot = "empty"
	// MissingPrevious restores the newest finished snapshot that RestoreRequest.Previous
	// describes, and fails with CodeSnapshotNotFound where there is none.
	MissingPrevious MissingSnapshot = "previous"
)

// FileError is what a restore does about an entry that the repository can't give back,
// or that can't be written into the volume.
type FileError string

// What there is to do about it. The zero value is FileErrorFail.
const (
	// FileErrorFail ends the restore.
	FileErrorFail FileError = "fail"
	// FileErrorSkip leaves the entry out, with all that is in it, and goes on: RestoreResult.LeftOut counts it.
	// A restore that could write nothing fails.
	FileErrorSkip FileError = "skip"
)

// Previous describes the snapshots that may stand in for one that is missing.
type Previous struct {
	// Host and Path are their source: exactly those, never another one's.
	Host string `json:"host"`
	Path string `json:"path"`
	// Before is the moment before which they were begun.
	Before time.Time `json:"before"`
	// Expect are tags that they have with these values.
	Expect map[string]string `json:"expect,omitempty"`
}

// Fits reports whether a snapshot is one of those described.
func (p Previous) Fits(s Snapshot) bool {
	return s.Host == p.Host && s.Path == p.Path && s.Time.Before(p.Before) && s.Unlike(p.Expect) == ""
}

// Validate says what is wrong with the request; its error is an *Error of code CodeInvalidRequest.
func (r RestoreRequest) Validate() error {
	if r.Root == nil || r.Job == "" {
		return Errorf(CodeInvalidRequest, "restore volume: root and job are needed")
	}

	switch r.Existing {
	case "", ExistingRefuse, ExistingOverwrite, ExistingMirror, ExistingKeep:
	default:
		return Errorf(CodeInvalidRequest, "restore volume: what to do about existing data is %q, expected %s, %s, %s or %s",
			r.Existing, ExistingRefuse, ExistingOverwrite, ExistingMirror, ExistingKeep)
	}

	switch r.OnFileError {
	case "", FileErrorFail, FileErrorSkip:
	default:
		return Errorf(CodeInvalidRequest, "restore volume: what to do about an entry that fails is %q, expected %s or %s",
			r.OnFileError, FileErrorFail, FileErrorSkip)
	}

	switch r.OnMissing {
	case "", MissingFail, MissingEmpty:
		return nil
	case MissingPrevious:
	default:
		return Errorf(CodeInvalidRequest, "restore volume: what to do without a snapshot is %q, expected %s, %s or %s",
			r.OnMissing, MissingFail, MissingEmpty, MissingPrevious)
	}

	if p := r.Previous; p == nil || p.Host == "" || p.Path == "" || p.Before.IsZero() {
		return Errorf(CodeInvalidRequest, "restore volume: to restore a previous snapshot, its host, its path and a time are needed")
	}

	return nil
}

// Continues returns an error where an earlier run has begun with another snapshot than
// that of the ID, which is empty for none.
func (r RestoreRequest) Continues(snapshot string) error {
	if r.Begun == "" || r.Begun == snapshot || r.Existing == ExistingMirror && snapshot != "" {
		return nil
	}

	now := "none"
	if snapshot != "" {
		now = snapshot
	}

	return Errorf(CodeSnapshotNotFound,
		"an earlier run began to restore snapshot %s, of which the volume holds a part, and now there is %s to restore; restore again, as a mirror", r.Begun, now)
}

// Guarded reports whether the volume must be found empty before anything is written.
func (r RestoreRequest) Guarded() bool {
	return (r.Existing == "" || r.Existing == ExistingRefuse || r.Existing == ExistingKeep) && !r.Resumed
}

// Keeps reports whether data that is found in the volume is to stay, and nothing be restored.
func (r RestoreRequest) Keeps() bool {
	return r.Existing == ExistingKeep && r.Owned && !r.Resumed
}
