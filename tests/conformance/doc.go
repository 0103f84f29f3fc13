// Package conformance drives the plugin's binary as Velero's server does,
// through Velero's own client of plugins, against an API server that is a map.
// It must not reach into the plugin's packages, but for the list of names. The
// same tests run with older Veleros, too: velerodriver/*.mod are the modules that
// a small program with such a Velero in it is built with.
package conformance
