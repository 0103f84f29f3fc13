// Package restore holds the restore item actions: the pod's puts the gate into
// the pod and asks for the jobs that fill its volumes; the claim's and the
// PersistentVolume's see to it that a new volume is made rather than the
// original one bound, and the claim's asks for its job, too, so that a claim that
// no pod of the restore mounts doesn't come back empty without a word; that of
// Estiba's own kinds keeps old jobs from running again.
//
// A pod whose data is known to lie in a repository is restored with its gate and
// its jobs, whether or not somebody lives who does them, or else held back: made
// without ever being scheduled. It is never left out, for its controller would make
// another one, without a gate, that starts on empty volumes; one that exists and
// can't start counts as its replica. Every call is bounded in time. The package must
// not read or move data.
package restore
