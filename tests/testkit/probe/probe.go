// Package probe is what an end-to-end test and the program that it runs in the
// daemon's pod (tests/testkit/cmd/inside) say to each other.
package probe

import (
	"github.com/estiba-dev/estiba/mover/store/settings"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

// Task is a worker to be started, and what it is to try.
type Task struct {
	// Verb is VerbBackup or VerbRestore.
	Verb protocol.Verb
	// Volume and CacheDir are paths in the daemon's container.
	Volume, CacheDir string
	// Store, Credentials and Folder are those of the repository that the broker serves.
	Store       settings.Settings
	Credentials settings.Credentials
	Folder      string
	// Attempts of the worker.
	Attempts Attempts
}

// Attempts are what a worker tries besides what package workertest knows.
type Attempts struct {
	// Files to read.
	Files []string
	// Requests to the broker: a method and a target, such as "GET /capacity".
	Requests []string
}

// Answer is one of the broker's.
type Answer struct {
	Status int
	Body   []byte
}

// Findings are what the worker found.
type Findings struct {
	workertest.Findings

	// Fences are those that the worker reported.
	Fences protocol.Fences
	// Answers of the broker, by request.
	Answers map[string]Answer
}
