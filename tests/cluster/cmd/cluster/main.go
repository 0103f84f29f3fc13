// Command cluster starts, stops and enters the local test cluster. All it does is in package cluster; here
// are only its verbs and flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/estiba-dev/estiba/tests/cluster"
)

const usage = `usage: cluster VERB

  up [--velero-namespace NAME] [--fsb] [--nodes N | --bucket-of DIR]
                                         start the cluster, building its programs first (some ten minutes the first time)
  down                                   stop it and remove everything but the cache
  status                                 say what runs
  exec -- CMD...                         run a command inside, with kubectl and velero at hand
  load IMAGE.tar...                      import docker-archive images
  load-postgresql                        make an image of PostgreSQL from Debian packages and import it
  install-estiba MANIFESTS IMAGE.tar     install Estiba, or update it
  reinstall                              put Velero and Estiba back after somebody removed them
  build                                  only build programs and images

ESTIBA_CLUSTER_DIR (default /var/lib/estiba-cluster) and ESTIBA_CACHE (default /var/cache/estiba) move its folders.
`

var errUsage = errors.New("no such verb")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("interrupted: run it again to go on, or down to remove what there is (%w)", err)
	}
	stop()
	if errors.Is(err, errUsage) || errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	c := cluster.DefaultConfig(os.Getenv)
	verb, args := args[0], args[1:]
	switch verb {
	case "up", "build":
		return start(ctx, verb, c, args)
	case "down":
		return cluster.Down(ctx, c, os.Stdout)
	case "status":
		return cluster.Status(ctx, c, os.Stdout)
	case "node":
		if len(args) != 2 {
			return errUsage
		}
		return cluster.RunNode(ctx, args[0], args[1])
	}
	return inside(ctx, verb, c.Dir, args)
}

func start(ctx context.Context, verb string, c cluster.Config, args []string) error {
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.StringVar(&c.Velero.Namespace, "velero-namespace", c.Velero.Namespace, "namespace that Velero is installed into")
	flags.BoolVar(&c.Velero.FSB, "fsb", c.Velero.FSB, "also run Velero's own node-agent")
	nodes := flags.Int("nodes", len(c.Nodes), "number of nodes; the first one carries the control plane, and all pods that don't ask for another")
	bucketOf := flags.String("bucket-of", "", "state `folder` of a running cluster whose object store is used, without a storage location of Velero's; with one node")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c = c.WithNodes(*nodes)
	if *bucketOf != "" {
		var err error
		if c, err = c.WithBucketOf(*bucketOf); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	o := cluster.Options{Out: os.Stdout, Program: self, Now: time.Now}
	if verb == "build" {
		return cluster.Build(ctx, c, o)
	}
	return cluster.Up(ctx, c, o)
}

// inside runs the verbs that need a running cluster.
func inside(ctx context.Context, verb, dir string, args []string) error {
	if !slices.Contains([]string{"exec", "load", "load-postgresql", "install-estiba", "reinstall"}, verb) {
		return errUsage
	}
	c, err := cluster.Load(dir)
	if err != nil {
		return err
	}
	switch {
	case verb == "install-estiba" && len(args) == 2:
		return c.InstallEstiba(ctx, os.Stdout, args[0], args[1])
	case verb == "load-postgresql" && len(args) == 0:
		return c.LoadPostgreSQL(ctx, os.Stdout)
	case verb == "reinstall" && len(args) == 0:
		return c.Reinstall(ctx)
	case verb == "load":
		return load(ctx, c, args)
	case verb != "exec":
		return errUsage
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errUsage
	}
	return c.Exec(args[0], args[1:]...)
}

func load(ctx context.Context, c cluster.Config, paths []string) error {
	for _, path := range paths {
		if err := c.LoadImage(ctx, path); err != nil {
			return err
		}
	}
	return nil
}
