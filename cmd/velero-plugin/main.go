// Command velero-plugin is the plugin that Velero's server loads from its
// plugin folder. It is started by Velero only.
package main

import (
	"github.com/spf13/pflag"

	"github.com/estiba-dev/estiba/plugins/bundle"
)

func main() {
	bundle.Serve(pflag.CommandLine)
}
