// Package backup holds the backup item actions for pods, claims and persistent
// volumes: they ask for jobs, write records of them into what goes into the
// tarball, and report the jobs as Velero operations.
//
// Velero calls them in this order for a pod with a claim: the PersistentVolume's
// action, the claim's, the pod's (velero v1.18.3 pkg/backup/item_backupper.go).
// So each decides by itself, with the same pure functions. They never return an
// error for what happens to data, for Velero would drop the item: they log it,
// which makes the backup partially failed, or an operation reports it.
//
// Every call is bounded in time. The package must not read or move data.
package backup
