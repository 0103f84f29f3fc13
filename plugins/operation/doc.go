// Package operation ties Velero's asynchronous operations to jobs: an
// operation's ID lists jobs, and the state of the jobs is the operation's
// progress. It is pure but for Poll, which waits and asks through what it is given,
// and the Lister over package jobs that both kinds of actions give it.
//
// It must not decide anything about jobs.
package operation
