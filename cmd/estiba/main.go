// Command estiba is for people: what can be done with Estiba's keys outside of a
// running backup or restore. `estiba --help` lists it.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/estiba-dev/estiba/mover/keys"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	root := &cobra.Command{
		Use: "estiba", Short: "Works with the keys of Estiba's backups",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(keys.Command(cmp.Or(os.Getenv("VELERO_NAMESPACE"), "velero"), rand.Reader))

	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}

	return 0
}
