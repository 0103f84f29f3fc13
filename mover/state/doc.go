// Package state is the phase machine of the jobs: from a job, what was observed
// about it and the time it gives what to do next, and why. The controllers
// observe and apply; nothing is decided there.
//
// All of it is pure: no I/O, no clock, no logging. The package must import the
// API kinds only.
package state
