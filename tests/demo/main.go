// Command demo tells the main job of Estiba as a story, on the local cluster:
// an application with volumes is backed up, deleted, restored and compared. Run
// it by `make demo`. Every line that it prints of a result was looked up, none is
// written down beforehand.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/estiba-dev/estiba/tests/testkit/lab"
)

const (
	namespace = "estiba-demo"
	bound     = 15 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()

	l, err := lab.Open()
	if err == nil {
		s := &story{lab: l, app: &lab.App{Lab: l, Namespace: namespace, Class: "standard"}, out: os.Stdout}
		err = s.tell(ctx)
	}

	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}
