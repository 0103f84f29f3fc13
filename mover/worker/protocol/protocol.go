// Package protocol is what the daemon and a worker process say to each other:
// the request that goes into the worker, and the reports that come out of it.
// Both ends are the same program of the same release; the version only guards
// against a program that was replaced between the two.
//
// It holds shapes and their encoding; it must not start, open or run anything.
package protocol

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/estiba-dev/estiba/mover/engine"
)

// Version is the version of this protocol.
const Version = 1

// The descriptors that a worker inherits, besides 0 (nothing), 1 and 2 (its log).
const (
	// RequestFD is the pipe that the Request comes through: one document, then the end. A
	// restore gets a Permit after it, when it has reported that it is about to write.
	RequestFD = 3
	// ReportFD is the pipe for Reports, one on a line.
	ReportFD = 4
	// StorageFD is the socket on which the daemon serves the repository's storage.
	StorageFD = 5
	// VolumeFD is open on the volume's folder; absent for repository work.
	VolumeFD = 6
)

// The verbs of the program under which the two stages of a worker run.
const (
	// CommandLockIn is the first stage: it takes away what the worker may not have, and executes the second.
	CommandLockIn = "worker"
	// CommandRun is the second stage: it does the job.
	CommandRun = "worker-run"
)

// WindUp is the signal on which the worker of a backup writes down what it has, and ends. SIGTERM has any worker end at once.
const WindUp = syscall.SIGUSR1

// Verb is what a worker is to do.
type Verb string

// The verbs.
const (
	VerbCreateRepository Verb = "create-repository"
	// VerbOpenRepository looks whether the repository is there and opens; it writes nothing.
	VerbOpenRepository Verb = "open-repository"
	// VerbRotateKey has the repository be opened by the current password alone.
	VerbRotateKey Verb = "rotate-key"
	VerbBackup    Verb = "backup"
	VerbRestore   Verb = "restore"
	// VerbSetLinks does the rest of a restore: the attributes of symbolic links, and nothing else.
	VerbSetLinks Verb = "set-links"
	VerbForget   Verb = "forget"
	VerbList     Verb = "list"
)

// Known reports whether this release knows the verb.
func (v Verb) Known() bool {
	switch v {
	case VerbCreateRepository, VerbOpenRepository, VerbRotateKey, VerbBackup, VerbRestore, VerbSetLinks, VerbForget, VerbList:
		return true
	default:
		return false
	}
}

// MovesVolume reports whether the verb works on a volume, so that the worker gets
// a descriptor of one; the other verbs are repository work.
func (v Verb) MovesVolume() bool {
	return v == VerbBackup || v == VerbRestore || v == VerbSetLinks
}

// Cache is where a worker may keep what it fetched, and how much.
type Cache struct {
	// Dir is an absolute path, one for each repository. The worker makes it.
	Dir string `json:"dir"`
	// MetadataBytes and ContentBytes bound the two parts of the cache, in bytes.
	MetadataBytes int64 `json:"metadataBytes,omitempty"`
	ContentBytes  int64 `json:"contentBytes,omitempty"`
}

// Request is the one document that a worker reads.
type Request struct {
	Version int  `json:"version"`
	Verb    Verb `json:"verb"`
	// Password of the repository. It goes through the pipe and nowhere else.
	Password string `json:"password"`
	// Previous is the password that the repository may still have while the master key is
	// being rotated; empty otherwise. It is as secret.
	Previous string `json:"previous,omitempty"`
	// Seed is for VerbCreateRepository: what the keys of a new repository are made of. It is
	// as secret; without it none is made.
	Seed  string `json:"seed,omitempty"`
	Cache Cache  `json:"cache"`
	// Strict refuses to work where the kernel lacks a fence.
	Strict bool `json:"strict,omitempty"`
	// MemoryCeiling is what the worker may use in any case, in bytes; 0 means no bound.
	MemoryCeiling int64 `json:"memoryCeiling,omitempty"`
	// MemoryMost is what it may use as long as others leave it that, in bytes.
	MemoryMost int64 `json:"memoryMost,omitempty"`

	// VolumeStall is how long a call to the volume may take; 0 means no bound.
	VolumeStall time.Duration `json:"volumeStall,omitempty"`

	// Format is for VerbCreateRepository.
	Format engine.Format `json:"format,omitempty"`
	// Backup is for VerbBackup.
	Backup *engine.BackupRequest `json:"backup,omitempty"`
	// Restore is for VerbRestore.
	Restore *engine.RestoreRequest `json:"restore,omitempty"`
	// Links is for VerbRestore and VerbSetLinks: the name of a file in the cache in which a restore leaves the attributes of
	// symbolic links. Without it, it sets them itself, which its fences refuse.
	Links string `json:"links,omitempty"`
	// LeaveOut is for VerbSetLinks: a link whose attributes can't be set is named, and keeps nobody up.
	LeaveOut bool `json:"leaveOut,omitempty"`
	// Forget is for VerbForget.
	Forget *engine.ForgetRequest `json:"forget,omitempty"`
}

// Validate says what is wrong with the request. The error is an *engine.Error of code CodeInvalidRequest.
func (r Request) Validate() error {
	if err := r.validate(); err != nil {
		return engine.Errorf(engine.CodeInvalidRequest, "request to the worker: %w", err)
	}

	return nil
}

func (r Request) validate() error {
	if r.Version != Version {
		return fmt.Errorf("version is %d, expected %d", r.Version, Version)
	}

	if !filepath.IsAbs(r.Cache.Dir) {
		return fmt.Errorf("cache.dir is %q, expected an absolute path", r.Cache.Dir)
	}

	if r.Links != filepath.Base(r.Links) && r.Links != "" {
		return fmt.Errorf("links is %q, expected the name of a file", r.Links)
	}

	missing := map[Verb]bool{
		VerbCreateRepository: r.Format == "",
		VerbOpenRepository:   false,
		VerbRotateKey:        r.Previous == "",
		VerbBackup:           r.Backup == nil,
		VerbRestore:          r.Restore == nil,
		VerbSetLinks:         r.Links == "",
		VerbForget:           r.Forget == nil,
		VerbList:             false,
	}

	lacks, known := missing[r.Verb]
	if !known {
		return fmt.Errorf("verb %q is unknown", r.Verb)
	}

	if lacks {
		return fmt.Errorf("verb is %s, but its part of the request is missing", r.Verb)
	}

	return nil
}

// Fence is one of the kernel's means that keep a worker in.
type Fence string

// The fences that a kernel may lack.
const (
	// FenceLandlock keeps the worker from opening anything but its volume and its cache.
	FenceLandlock Fence = "Landlock"
	// FenceReadOnlyVolume keeps a backup from writing to the volume. It comes with Landlock.
	FenceReadOnlyVolume Fence = "ReadOnlyVolume"
	// FenceSeccomp keeps the worker from the network, from other processes and from opening files by handle.
	FenceSeccomp Fence = "Seccomp"
	// FenceOpenat2 has the kernel itself keep each open within the volume. Without it each is checked afterwards.
	FenceOpenat2 Fence = "Openat2"
)

// Fences says which fences a worker runs behind.
type Fences struct {
	// LandlockABI is the version of Landlock in force; 0 is none.
	LandlockABI int `json:"landlockABI"`
	// Seccomp says that the worker's own filter is in force.
	Seccomp bool `json:"seccomp"`
	// Capabilities that the worker holds, such as DAC_OVERRIDE.
	Capabilities []string `json:"capabilities,omitempty"`
	// Lacking are those that its direction wants and the daemon does not have.
	Lacking []string `json:"lacking,omitempty"`
	// Missing are the fences that are not there.
	Missing []Fence `json:"missing,omitempty"`
	// Detail says for people why a fence is missing.
	Detail string `json:"detail,omitempty"`
}

// Failure is an error on its way through the pipe.
type Failure struct {
	Code    engine.Code `json:"code"`
	Message string      `json:"message"`
}

// FailureOf returns the failure for an error; nil for nil.
func FailureOf(err error) *Failure {
	if err == nil {
		return nil
	}

	return &Failure{Code: engine.CodeOf(err), Message: err.Error()}
}

// Err returns the failure as an *engine.Error; nil for nil.
func (f *Failure) Err() error {
	if f == nil {
		return nil
	}

	return &engine.Error{Code: f.Code, Err: errors.New(f.Message)}
}

// Result is the last report of a worker: an error, or the part that belongs to the verb.
type Result struct {
	Error     *Failure              `json:"error,omitempty"`
	Backup    *engine.BackupResult  `json:"backup,omitempty"`
	Restore   *engine.RestoreResult `json:"restore,omitempty"`
	Forget    *engine.ForgetResult  `json:"forget,omitempty"`
	Snapshots []engine.Snapshot     `json:"snapshots,omitempty"`
	// Links is how many symbolic links a restore has left without their attributes.
	Links int64 `json:"links,omitempty"`
}

// Answers says whether the result is one that the verb can have: a success
// without the part that the verb is all about is none.
func (r Result) Answers(v Verb) bool {
	if r.Error != nil {
		return true
	}

	switch v {
	case VerbBackup:
		return r.Backup != nil
	case VerbRestore:
		return r.Restore != nil
	case VerbForget:
		return r.Forget != nil
	default:
		return true
	}
}

// Report is one line from a worker; one of its parts is set.
type Report struct {
	Version  int              `json:"version"`
	Fences   *Fences          `json:"fences,omitempty"`
	Progress *engine.Progress `json:"progress,omitempty"`
	// Writing is the ID of the snapshot that a restore is about to write into the volume; it waits for the Permit.
	Writing string  `json:"writing,omitempty"`
	Result  *Result `json:"result,omitempty"`
}

// Permit is the answer to a restore that is about to write.
type Permit struct {
	// Refused is why it must not; empty where it may.
	Refused string `json:"refused,omitempty"`
}
