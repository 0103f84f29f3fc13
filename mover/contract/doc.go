// Package contract holds everything that outlives a release or a process: the
// annotations and labels on Kubernetes objects, the records that travel in a
// backup's tarball, the tags and names inside a kopia repository, the layout of
// the bucket and the files of the restore gate.
//
// All of it is pure: values in, values out. The package imports the standard
// library only, does no I/O, and each wire shape has a golden file under
// testdata. What is written here once is read for ever: change a shape only by
// a new version beside the old one.
package contract
