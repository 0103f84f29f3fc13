// Package engine is the contract between those who want volumes moved and the
// one who moves them: requests, results, progress and errors. It imports the
// standard library only, so that the daemon can speak of the work without
// linking the engine that does it.
package engine

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// Engine moves volumes to and from repositories.
//
// An Engine is used for one repository by one worker process, which calls one
// of the methods once. A second call, also of the same method and also
// concurrently, must work nevertheless: each is independent and idempotent. All
// methods return when ctx is done, within seconds, with an *Error of code
// CodeCanceled. Every error they return is, or wraps, an *Error.
type Engine interface {
	// CreateRepository makes the repository, or finds that it is there already and
	// opens with the key given. With FormatExisting it makes none and writes nothing:
	// where there is none, it fails with CodeRepositoryNotFound. It loads no snapshots,
	// so that it is the cheap way to look whether a repository opens.
	CreateRepository(ctx context.Context, format Format) error
	// RotateKey has the repository be opened by the current password alone, where the
	// previous one opens it; see repository.RotateKey. Repeating it is fine.
	RotateKey(ctx context.Context) error
	// Backup takes a snapshot of the folder that r.Root is open on. When it
	// returns without an error, the snapshot is flushed, listed and read back.
	// Progress may be nil; it is called from one goroutine at a time.
	Backup(ctx context.Context, r BackupRequest, p ProgressFunc) (BackupResult, error)
	// Restore writes a snapshot into the folder that r.Root is open on. When it
	// returns without an error, the data has been synced to the volume's storage.
	Restore(ctx context.Context, r RestoreRequest, p ProgressFunc) (RestoreResult, error)
	// Forget removes all snapshots of a job, or those of them that r.Expect describes. When it returns without an error,
	// the repository has been asked again and has none. Unknown jobs are no error.
	Forget(ctx context.Context, r ForgetRequest) (ForgetResult, error)
	// Snapshots lists the snapshots of the repository that Estiba took, oldest first.
	Snapshots(ctx context.Context) ([]Snapshot, error)
}

// Format is how a repository keeps its data; it is chosen when the repository is made.
type Format string

// The formats.
const (
	// FormatFast is BLAKE3 and AES-256-GCM.
	FormatFast Format = "fast"
	// FormatFIPS is HMAC-SHA256, AES-256-GCM and PBKDF2.
	FormatFIPS Format = "fips"
	// FormatExisting is whatever the repository has; none is made.
	FormatExisting Format = "existing"
)

// BackupRequest says what to take a snapshot of, and what to write on it.
type BackupRequest struct {
	// Root is open on the volume's folder. The engine does not close it.
	Root *os.File `json:"-"`
	// Host and Path are the source of the kopia snapshot; see contract.Source.
	Host string `json:"host"`
	Path string `json:"path"`
	// Instance of the volume: only files of snapshots of the same path and
	// instance may be taken over without reading.
	Instance string `json:"instance"`
	// Job, and the other Tags, are kept with the snapshot.
	Job  string            `json:"job"`
	Tags map[string]string `json:"tags"`
	// Description is for people.
	Description string `json:"description,omitempty"`
	// Parallel is how many files are read at a time; 0 chooses by the processors.
	Parallel int `json:"parallel,omitempty"`
	// FlushAfter is after how many files and folders what was read so far is written to the store, with its index, which takes
	// memory until then; 0 chooses.
	FlushAfter int `json:"flushAfter,omitempty"`
	// WriteBack is how long the kernel that the volume is mounted in may keep to itself what a
	// program has stored into a file; 0 where that is not known. In that time, a program may change a file
	// through its memory without the file's times changing.
	WriteBack time.Duration `json:"writeBack,omitempty"`
	// WindUp is closed when the backup is to end early, and may take as long as it needs to write down what it has:
	// it is not cancelled. One that has read the volume already goes on to its end. Nil never asks for that.
	WindUp <-chan struct{} `json:"-"`
}

// BackupResult says what was taken.
type BackupResult struct {
	// SnapshotID is the ID of the kopia manifest.
	SnapshotID string `json:"snapshotID"`
	// Incremental says that an earlier snapshot of the same instance spared reading.
	Incremental bool `json:"incremental,omitempty"`
	// LostPacks is how many blobs of the repository (packs and indexes) the store was found
	// to have lost, cut or altered. What they held was dropped, so that it is uploaded
	// again where a volume still has it; earlier snapshots that need it are damaged.
	LostPacks int     `json:"lostPacks,omitempty"`
	Summary   Summary `json:"summary"`
}

// RestoreRequest says which snapshot to write where.
type RestoreRequest struct {
	// Root is open on the volume's folder. The engine does not close it.
	Root *os.File `json:"-"`
	// Job is the tag of the snapshot to restore.
	Job string `json:"job"`
	// Expect are tags, beside that of the job, that the snapshot must have with these
	// values. Where only others of the job are there, it is SnapshotNotFound.
	Expect map[string]string `json:"expect,omitempty"`
	// Parallel is how many files are written at a time; 0 chooses by the processors.
	Parallel int `json:"parallel,omitempty"`
	// Description names the volume for people.
	Description string `json:"description,omitempty"`
	// Existing says what becomes of data that is in the volume. Where the volume has to be
	// empty and isn't, the restore fails with CodeTargetNotEmpty and has written nothing.
	Existing ExistingData `json:"existing,omitempty"`
	// Owned says that what is in the volume is its own: no restore has begun to fill it, or may have.
	// ExistingKeep keeps only that.
	Owned bool `json:"owned,omitempty"`
	// Resumed says that an earlier run of the same job was let to write (see BeforeWrite):
	// what is in the volume may be its own, and is not refused.
	Resumed bool `json:"resumed,omitempty"`
	// Begun is the ID of the snapshot that the earlier run was let to write; empty where that
	// is not known. Where it is another one's turn now, or none's, the restore fails with
	// CodeSnapshotNotFound: halves of two snapshots are no volume. A mirror leaves nothing of the first one.
	Begun string `json:"begun,omitempty"`
	// BeforeWrite is called once, after all that can be looked at was found right and
	// before anything is changed in the volume, with the ID of the snapshot. Its error, which has
	// to be an *Error, ends the restore. Nil lets it go on.
	BeforeWrite func(ctx context.Context, snapshot string) error `json:"-"`
	// LinkAttributes takes the owner and times of each symbolic link that was made, for somebody else to set them; the
	// engine then sets none. It may be called concurrently. Nil has the engine set them.
	LinkAttributes func(LinkAttributes) error `json:"-"`
	// OnMissing says what to do where there is no finished snapshot of the job.
	OnMissing MissingSnapshot `json:"onMissing,omitempty"`
	// OnFileError says what to do about an entry that can't be restored.
	OnFileError FileError `json:"onFileError,omitempty"`
	// Previous goes with MissingPrevious.
	Previous *Previous `json:"previous,omitempty"`
}

// LinkAttributes are the attributes that a symbolic link is to have.
type LinkAttributes struct {
	// Path of the link below the root, as raw bytes.
	Path []byte `json:"path"`
	// UID and GID are its owner.
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// ModTime is its time of change.
	ModTime time.Time `json:"modTime"`
}

// RestoreResult says what was written.
type RestoreResult struct {
	// SnapshotID is the ID of the kopia manifest that was restored; empty where none was.
	SnapshotID string  `json:"snapshotID"`
	Summary    Summary `json:"summary"`
	// Kept are the first entries, quoted, of the data that was found in the volume and left as it
	// is, where that was asked for; else it is empty.
	Kept []string `json:"kept,omitempty"`
	// LeftOut counts the entries that could not be restored, where OnFileError let the restore go
	// on; the omissions name them. What is in a folder that could not be read is not counted.
	LeftOut int64 `json:"leftOut,omitempty"`
	// Missing says why the job's snapshot could not be had, where OnMissing let the
	// restore go on; else it is empty.
	Missing string `json:"missing,omitempty"`
	// Instead is the snapshot that stood in for the missing one; nil where the volume
	// was left as it was.
	Instead *Snapshot `json:"instead,omitempty"`
}

// ForgetRequest says what to forget.
type ForgetRequest struct {
	// Job is the tag of the snapshots to forget.
	Job string `json:"job"`
	// Expect are tags, beside that of the job, that the snapshots to forget have with
	// these values. Others of the job stay, and don't count: they are not what is meant, be
	// they forged, another cluster's or of a release that wrote no such tags. They cost space
	// only, and whoever collects what nobody owns finds them by the tags that they have.
	Expect map[string]string `json:"expect,omitempty"`
}

// ForgetResult says what was forgotten.
type ForgetResult struct {
	// Deleted is the number of manifests removed.
	Deleted int `json:"deleted"`
}

// Snapshot is one snapshot in a repository.
type Snapshot struct {
	ID   string            `json:"id"`
	Host string            `json:"host"`
	Path string            `json:"path"`
	Tags map[string]string `json:"tags"`
	Time time.Time         `json:"time"`
	// Bytes is the size of all regular files, in bytes.
	Bytes int64 `json:"bytes"`
}

// Unlike names the first tag, in the order of names, that is not as expected, with
// both values; it is empty where all are.
func (s Snapshot) Unlike(expect map[string]string) string {
	for _, k := range slices.Sorted(maps.Keys(expect)) {
		got, ok := s.Tags[k]

		switch {
		case !ok:
			return fmt.Sprintf("it has no tag %s, expected %q", k, expect[k])
		case got != expect[k]:
			return fmt.Sprintf("its tag %s is %q, expected %q", k, got, expect[k])
		}
	}

	return ""
}

// Progress counts what is done so far. Totals are estimates, and 0 while unknown.
type Progress struct {
	BytesDone  int64 `json:"bytesDone"`
	TotalBytes int64 `json:"totalBytes"`
	FilesDone  int64 `json:"filesDone"`
	TotalFiles int64 `json:"totalFiles"`
}

// ProgressFunc takes the progress; it must return quickly.
type ProgressFunc func(Progress)

// Summary counts what was moved.
type Summary struct {
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Symlinks    int64 `json:"symlinks"`
	// Bytes is the size of all regular files, in bytes.
	Bytes int64 `json:"bytes"`
	// ReadBytes is what was read from the volume, in bytes.
	ReadBytes int64 `json:"readBytes"`
	// StoredBytes is what was written to the store, in bytes.
	StoredBytes int64 `json:"storedBytes"`
	// Omissions list what was met and could not be kept.
	Omissions []Omission `json:"omissions,omitempty"`
}
