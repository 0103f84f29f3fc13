// Package beneath is the only package that opens, makes or changes the files of
// a tenant's volume. Everything it does is relative to a directory descriptor,
// one path component at a time, and never follows a symbolic link: a tenant who
// swaps a folder or a file for a link while it is being read or written gains
// nothing, neither a byte of another tree nor a change to one.
//
// Where the kernel has openat2, each component is opened with RESOLVE_BENEATH,
// RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS and RESOLVE_NO_XDEV. Elsewhere it is
// opened with O_NOFOLLOW and the mount it lies on is compared with the root's
// before anything is done with it. In both ways the identity of what was opened
// (device, inode, type) is compared with what was listed.
//
// Names are raw bytes, kept in Go strings: any byte but '/' and NUL. A path is
// never built, so its length has no limit.
//
// The package must not hand the kernel a path of more than one component, must not log, must
// not know what a snapshot or a repository is, and imports the standard library
// and golang.org/x/sys only. It needs Linux 4.11 (statx) and a mounted /proc.
package beneath
