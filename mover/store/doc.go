// Package store is the way to the object store, and the only one.
//
// The daemon's side opens a provider (one file each: s3.go, filesystem.go),
// confines it to the folder of one repository, adds the layers that every
// store needs (retry, credentials that are read again, stall watch, bandwidth
// limit, counting, refusal of writes) and serves it by a Broker to one worker
// over one socket. The worker's side is a Client: a kopia blob.Storage that
// speaks over that socket, remembers every blob that it wrote, and can tell
// afterwards whether the store really has them.
//
// It must not know of Kubernetes, of volumes or of what is in the blobs, and it
// must never give a worker a credential or a path outside its repository.
package store
