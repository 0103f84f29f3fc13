// Package volumeselect decides which volumes of a backup Estiba moves, and says
// why or why not. All of it is pure: objects in, a verdict out. The actions on
// pods, claims and persistent volumes call the same functions, because Velero
// calls them in an order that lets none of them wait for another's answer.
//
// It must not read from the cluster, log, or ask for a job.
package volumeselect
