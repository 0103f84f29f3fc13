// Package repository makes, opens and maintains kopia repositories on a storage
// that its caller holds. It knows of formats, keys, caches and what kopia's errors
// mean; it must not know of volumes, snapshots' contents or Kubernetes, and it
// writes no secret to disk: passwords and keys stay in memory, and what is cached
// lies there as it lies in the store, encrypted, but for the index of content
// hashes.
package repository
