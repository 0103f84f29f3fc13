// Command restore-wait is the init container of a restored pod: it waits until
// the mover says that the pod's data is there, and shows how far it has come.
// With --hold it is the container of a staging pod, and does nothing until it is told to stop.
//
// It only reads two small files. It must not speak to the API server, hold a
// credential, write anything but its termination message, or need any privilege:
// it runs as whatever user a namespace admits.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/estiba-dev/estiba/mover/contract"
)

const (
	// pollInterval is how often the files are looked at: a file of one line, by one small process.
	pollInterval = 200 * time.Millisecond
	// exitUsage is the exit status for arguments that can't be understood.
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)

	o, err := parse(os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}

	if err != nil {
		fmt.Fprintln(os.Stderr, "restore-wait:", err)
		os.Exit(exitUsage)
	}

	if o.hold {
		os.Exit(hold(ctx, os.Stdout))
	}

	ticker := time.NewTicker(pollInterval)
	status := newWaiter(o, os.Stdout, ticker.C).wait(ctx)

	ticker.Stop()
	stop()
	os.Exit(status)
}

// hold does nothing until it is told to stop.
func hold(ctx context.Context, out io.Writer) int {
	_, _ = fmt.Fprintln(out, "this pod keeps a volume mounted for Estiba, which reads or writes it from the node; it is removed when that is done")

	<-ctx.Done()

	return exitOpen
}

// onFailure is what to do when the restore has failed.
type onFailure string

const (
	// exitOnFailure ends, so that the kubelet shows the message and starts the container again.
	exitOnFailure onFailure = "exit"
	// holdOnFailure stays: a pod that fails for good is replaced by its controller
	// with one that has no gate and no data.
	holdOnFailure onFailure = "hold"
)

type options struct {
	gate           string
	onFailure      onFailure
	terminationLog string
	hold           bool
}

// parse reads the arguments. Where help is asked for, it writes it, and the error is flag.ErrHelp.
func parse(args []string, out io.Writer) (options, error) {
	var o options

	flags := flag.NewFlagSet("restore-wait", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.gate, "gate", contract.GateMountPath, "folder of the gate's files")
	flags.StringVar((*string)(&o.onFailure), "on-failure", string(exitOnFailure), "what to do when the restore has failed: exit or hold")
	flags.StringVar(&o.terminationLog, "termination-log", "/dev/termination-log", "file for the message of a failed restore")

	flags.BoolVar(&o.hold, "hold", false, "keep the volume mounted and do nothing until stopped")

	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(out)
		flags.Usage()

		return options{}, err
	} else if err != nil {
		return options{}, fmt.Errorf("%w; known are --gate, --on-failure, --termination-log and --hold", err)
	}

	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("argument %q is not expected; known are --gate, --on-failure, --termination-log and --hold", flags.Arg(0))
	case o.gate == "":
		return options{}, errors.New("--gate is empty, expected the folder of the gate's files")
	case o.onFailure != exitOnFailure && o.onFailure != holdOnFailure:
		return options{}, fmt.Errorf("--on-failure is %q, expected exit or hold", o.onFailure)
	}

	return o, nil
}
