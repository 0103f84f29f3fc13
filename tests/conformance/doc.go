// Package conformance drives the plugin's binary as Velero's server does,
// through Velero's own client of plugins, against an API server that is a map.
// It must not reach into the plugin's packages, but for the list of names.
package conformance
