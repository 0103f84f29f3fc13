// Package jobs is the only door to job objects: their names, their labels, how
// they are made, found, cancelled and read. The plugin asks through it and the
// controllers look through it, so that both mean the same object.
//
// Names, labels, builders and Progress are pure. The rest speaks to the API
// server through one client and keeps nothing. The package must not decide
// which volumes move, must not know Velero's types and must not write a job's status.
package jobs
