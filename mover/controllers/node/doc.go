// Package node is the daemon's side of the controllers: it takes on the jobs
// that were given to its node, checks the live pod and volume behind each, has
// workers do them, opens the gates of restored pods and sends the node's heartbeat.
//
// What to do is decided by package state; this package observes and applies. It
// must not open a tenant's files, run processes or speak to an object store: it
// asks for that through the interfaces that it declares.
package node
