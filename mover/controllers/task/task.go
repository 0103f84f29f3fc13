// Package task is what the controllers ask of those who run workers: to begin a
// piece of work, to look how it stands and to end it. It holds the words of
// that talk only, and must not run anything itself.
package task

import (
	"context"
	"os"

	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

// Work is what a worker is to do. Exactly one of Create, Open, RotateKey, Backup, Restore and
// Forget is set; their Root is left out, because OpenVolume gives it.
type Work struct {
	// UID of the object that the work is for: a namesake's work is not this one's.
	UID types.UID
	// Attempt is the number of the run, from 1.
	Attempt int32
	// Repository to work with.
	Repository v1alpha1.RepositoryReference
	// Volume names the volume that is moved, for people; no other volume has that name.
	Volume string
	// Frozen work waits for no slot.
	Frozen bool
	// Create finds the repository, or makes it of Seed.
	Create bool
	// Seed is what the keys of a new repository are made of: a secret. Without it none is made.
	Seed string
	// Open opens the repository, to see that it can be.
	Open bool
	// RotateKey has the repository be opened by the current master key alone.
	RotateKey bool
	// Backup takes a snapshot.
	Backup *engine.BackupRequest
	// Restore writes a snapshot into the volume.
	Restore *engine.RestoreRequest
	// Forget removes the snapshots of a job.
	Forget *engine.ForgetRequest
	// OpenVolume is called as soon as there is a slot, and returns the open folder
	// of the volume; nil for work on the repository alone. A *BlockedError among its
	// errors says why there is nothing to open.
	OpenVolume func(ctx context.Context) (*os.File, error)
	// BeforeWrite is called when the worker of a restore is about to change the volume, with the ID of the
	// snapshot, as the worker says; it waits for that. An error, which may be a *BlockedError, keeps it from it.
	BeforeWrite func(ctx context.Context, snapshot string) error
}

// BlockedError is the error of an OpenVolume that found the job's conditions not, or
// no more, fulfilled.
type BlockedError struct {
	Finding state.Finding
	// NotYet says that what is missing comes by itself.
	NotYet bool
}

// Error returns the message.
func (b *BlockedError) Error() string { return b.Finding.Message }

// Fences says behind which fences a worker ran.
type Fences struct {
	// Missing are the fences that the kernel lacks.
	Missing []string
	// Detail is for people.
	Detail string
}

// Result is what a run brought.
type Result struct {
	Backup  *engine.BackupResult
	Restore *engine.RestoreResult
	Forget  *engine.ForgetResult
}

// Run is how a piece of work stands.
type Run struct {
	state.Task
	// UID is that of the Work.
	UID types.UID
	// Position in the queue, from 1; 0 if it is not queued.
	Position int
	// Progress so far.
	Progress engine.Progress
	// Fences of the worker, as soon as they are known.
	Fences *Fences
	// Result of a run that ended without a failure.
	Result Result
}

// Ending is a way to end a run.
type Ending int

// The ways to end a run.
const (
	// Cancel asks the worker to stop, which may take it some seconds.
	Cancel Ending = iota
	// Abort ends the worker by force, at once.
	Abort
	// Forget drops what is known of a run that has ended; a live one is aborted first.
	Forget
)

// Tasks are the runs of this process, by a key that the caller chooses. All
// methods return at once and may be called concurrently.
type Tasks interface {
	// Begin begins the work, unless one of the same key is queued or runs. One that has ended is replaced.
	Begin(key string, w Work)
	// Look returns how the work of the key stands, and whether there is any.
	Look(key string) (Run, bool)
	// End ends the work of the key; an unknown key is no error.
	End(key string, how Ending)
}
