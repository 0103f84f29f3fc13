// Package cluster is the controller's side: what is no single node's work. It
// finds or makes repositories, gives restores to nodes once their pods stand at
// their gates, watches over the owners and the nodes of jobs, has snapshots
// forgotten, and removes job objects some time after their end.
//
// What to do about a job is decided by package state. The package must not open
// volumes, and speaks to object stores only through the interfaces it declares.
package cluster
