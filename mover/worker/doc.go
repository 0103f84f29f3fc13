// Package worker is the child's side of a worker process: it locks itself in,
// runs one job, reports the result and ends.
//
// A worker is the part that reads what tenants wrote and what lies in a bucket,
// so it is the part that may be taken over. Therefore it gives up all it does not
// need before it reads its first byte, in two stages. The first ([LockIn]) takes
// away privileges, capabilities and all files but the volume and the cache, on
// one thread, and executes the program again: thus all threads of the second
// have never had more. The second ([Run]) adds a filter of system calls and then
// reads the request.
//
// The package must not speak to the API server or a store, must not open any
// file but the descriptors that it was given and its cache, and does not know
// which engine it runs: that is handed in.
package worker
