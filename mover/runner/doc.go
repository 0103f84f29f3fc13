// Package runner starts worker processes, watches over them and hands back what
// they report. It owns the slots: how many workers run at a time on a node, who
// waits, and what is kept free for jobs that may not wait.
//
// It must not decide which job runs (the controllers do), must not open volumes
// or stores itself (they are handed in, opened when a slot is there), and must
// not link an engine.
package runner
