// Package operation ties Velero's asynchronous operations to jobs: an
// operation's ID lists jobs, and the state of the jobs is the operation's
// progress. It is pure but for Poll, which waits and asks through what it is given.
//
// It must not know how jobs are read, and must not decide anything about them.
package operation
