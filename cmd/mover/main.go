// Command mover runs the daemon of a node, the controller of the cluster and their workers.
package main

import (
	"os"

	"github.com/estiba-dev/estiba/mover/app"
)

func main() {
	os.Exit(app.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
