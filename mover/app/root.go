// Package app puts the mover's processes together: it makes the real things and
// hands them to those who know them by small interfaces only. It holds no
// decisions about jobs, and nothing but package main may import it.
package app

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/config"
	"github.com/estiba-dev/estiba/mover/worker"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// Main runs the command that the arguments, without the program's name, ask for,
// and returns the exit status. The function env gives the variables of the environment.
func Main(args []string, env func(string) string, stdout, stderr io.Writer) int {
	// A worker lives for one job: it goes past everything else.
	if len(args) > 0 {
		switch args[0] {
		case protocol.CommandLockIn:
			return worker.LockIn(args[1:])
		case protocol.CommandRun:
			return worker.Run(args[1:], worker.Deps{NewEngine: newEngine, SetLinks: setLinks, Tick: beneath.Tick})
		}
	}

	root := command(env)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)

	if err := root.Execute(); err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}

	return 0
}

func command(env func(string) string) *cobra.Command {
	root := &cobra.Command{
		Use:           "mover",
		Short:         "Moves the files of Kubernetes volumes for Velero",
		SilenceUsage:  true,
		SilenceErrors: true,
		// Nobody types this command: it is what the pods run.
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}

	root.AddCommand(
		roleCommand(config.RoleNode, "node", "Run the daemon of a node", env, runNode),
		roleCommand(config.RoleController, "controller", "Run the controller of the cluster", env, runController),
		&cobra.Command{
			Use: "version", Short: "Show the version", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(c.OutOrStdout(), version())
				return err
			},
		},
	)

	return root
}

func roleCommand(role config.Role, use, short string, env func(string) string, run func(config.Config, io.Writer) error) *cobra.Command {
	c := config.Default(role, env)
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.Validate(); err != nil {
				return err
			}

			return run(c, cmd.ErrOrStderr())
		},
	}
	c.AddFlags(cmd.Flags())

	return cmd
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}

	v := info.Main.Version

	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}

	return v + " " + info.GoVersion
}
