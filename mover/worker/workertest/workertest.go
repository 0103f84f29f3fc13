// Package workertest lets tests run real worker processes: it builds a small
// program with the worker's two commands and an engine that does what the test
// asks for. It must not be imported by anything but tests.
//
// The program is built on its own, without cgo, as the real one is: the second
// stage of a worker may execute its own file and no other, so it can't load the
// shared libraries that a test binary with the race detector needs.
package workertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// Script is what the worker's engine does; it travels as the job of a request.
type Script string

// The scripts.
const (
	// Succeed reports progress twice and ends.
	Succeed Script = "succeed"
	// Probe tries what a worker must not be able to do; its Findings are the snapshot's ID.
	Probe Script = "probe"
	// Wait reports progress once, and then waits for the end of its context.
	Wait Script = "wait"
	// Deaf reports progress once, and then does not listen to its context.
	Deaf Script = "deaf"
	// Allocate takes more and more memory, and does not listen to its context.
	Allocate Script = "allocate"
	// Grow takes more and more memory, tells how many bytes, and when it is told to wind up, one file.
	Grow Script = "grow"
	// Linger does so, and then waits for the end of its context.
	Linger Script = "linger"
	// Parallel has the snapshot's ID say how many files a backup may read at a time, and of how many it may keep the index.
	Parallel Script = "parallel"
	// Links hands the attributes of a link over.
	Links Script = "links"
	// LinkThatFails does so, and setting them fails.
	LinkThatFails Script = "link-that-fails"
	// Hang makes a file in the volume, and tells a file when it has got there.
	Hang Script = "hang"
	// Panic dies as Go programs die.
	Panic Script = "panic"
	// Exit ends the process without a result.
	Exit Script = "exit"
	// Fail returns an error of code StoreUnavailable.
	Fail Script = "fail"
	// Fetch sends the line "daemon" to the storage; the line that comes back is the snapshot's ID.
	Fetch Script = "fetch"
	// Write asks to write before it ends; the error of the answer comes back.
	Write Script = "write"
	// Cancel claims to have been told to stop.
	Cancel Script = "cancel"
)

// Each of these before a worker's command runs that as on a kernel that lacks something.
const (
	// CommandHideLandlock hides Landlock.
	CommandHideLandlock = "hide-landlock"
	// CommandHideOpenat2 hides openat2.
	CommandHideOpenat2 = "hide-openat2"
)

// Findings are the results of Probe's attempts: "ok", or the error of the system.
type Findings struct {
	Attempts map[string]string `json:"attempts"`
	// Effective, Permitted, Inheritable and Bounding capabilities, as bits.
	Effective   uint64 `json:"effective"`
	Permitted   uint64 `json:"permitted"`
	Inheritable uint64 `json:"inheritable"`
	Bounding    uint64 `json:"bounding"`
	// Descriptors are the open ones below 256 that Go's runtime did not open.
	Descriptors []int    `json:"descriptors"`
	Environment []string `json:"environment"`
	Dumpable    int      `json:"dumpable"`
}

// Request makes a valid request for a verb, whose engine runs the script.
func Request(v protocol.Verb, s Script, cacheDir string) protocol.Request {
	r := protocol.Request{
		Version:  protocol.Version,
		Verb:     v,
		Password: "a password that nobody may see",
		Cache:    protocol.Cache{Dir: cacheDir},
	}

	if v == protocol.VerbRotateKey {
		r.Previous = "another"
	}

	switch v {
	case protocol.VerbList, protocol.VerbOpenRepository, protocol.VerbRotateKey, protocol.VerbSetLinks:
	case protocol.VerbCreateRepository:
		r.Format = engine.Format(s)
	case protocol.VerbBackup:
		r.Backup = &engine.BackupRequest{Job: string(s)}
	case protocol.VerbRestore:
		r.Restore = &engine.RestoreRequest{Job: string(s)}
	case protocol.VerbForget:
		r.Forget = &engine.ForgetRequest{Job: string(s)}
	}

	return r
}

// Build builds the program into dir and gives its path.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "worker-child")

	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/estiba-dev/estiba/mover/worker/workertest/child")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")

	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the worker for tests: %w: %s", err, out)
	}

	return path, nil
}
