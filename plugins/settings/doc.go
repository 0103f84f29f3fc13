// Package settings reads what administrators and users set for Estiba's
// plugins: one ConfigMap in Velero's namespace, and annotations on a Backup or a
// Restore that count for more. All of it is pure: objects in, settings and what
// is wrong with them out.
//
// It must not read from the cluster. A value that can't be read never stops an
// item: its default, which is always the careful one, stands in, and the caller
// says the error where Velero counts it.
package settings
