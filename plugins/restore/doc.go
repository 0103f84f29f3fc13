// Package restore holds the restore item actions: the pod's puts the gate into
// the pod and asks for the jobs that fill its volumes; the claim's and the
// PersistentVolume's see to it that a new volume is made rather than the
// original one bound, and the claim's asks for its job, too, so that a claim that
// no pod of the restore mounts doesn't come back empty without a word; that of
// Estiba's own kinds keeps old jobs from running again.
//
// A pod whose data is known to lie in a repository is restored with its gate
// and its jobs, or not at all: a pod that nobody will ever let in is no use, and one
// that starts on empty volumes does harm. Every call is bounded in time. The
// package must not read or move data.
package restore
