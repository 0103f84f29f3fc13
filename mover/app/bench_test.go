package app

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// The programs that a worker may be of.
const (
	realWorker   = "github.com/estiba-dev/estiba/cmd/mover"
	greedyWorker = "github.com/estiba-dev/estiba/tests/testkit/cmd/greedy"
)

// bench is a repository, and worker processes for it that have only the capabilities
// that they are given.
type bench struct {
	t       *testing.T
	program string
	dir     string
	// ceiling of a worker's memory, in bytes; 0 is no bound. alone has it move one file at a time.
	ceiling int64
	alone   bool
}

// newBench makes a bench with workers of the program, which is built as it is shipped.
func newBench(t *testing.T, program string) *bench {
	t.Helper()

	if os.Geteuid() != 0 {
		t.Skip("needs user 0 with all capabilities")
	}

	b := &bench{t: t, dir: t.TempDir()}
	b.program = filepath.Join(b.dir, "mover")

	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", b.program, program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")

	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	require.NoError(t, os.Mkdir(filepath.Join(b.dir, "store"), 0o700))

	return b
}

// run runs a worker that may hold no more than these capabilities, as one of a daemon that has no more.
func (b *bench) run(r protocol.Request, volume string, capabilities []string) (protocol.Result, protocol.Fences, error) {
	b.t.Helper()

	bounds := "-all"
	for _, c := range capabilities {
		bounds += ",+" + strings.ToLower(c)
	}

	start := filepath.Join(b.t.TempDir(), "start")
	require.NoError(b.t, os.WriteFile(start, fmt.Appendf(nil, "#!/bin/sh\nexec setpriv --bounding-set=%s %s \"$@\"\n", bounds, b.program), 0o700))

	r.Version, r.Password = protocol.Version, strings.Repeat("ab", 32)
	if r.Verb == protocol.VerbCreateRepository {
		r.Seed = strings.Repeat("cd", 32)
	}

	r.Cache = protocol.Cache{Dir: filepath.Join(b.t.TempDir(), "cache"), MetadataBytes: 64 << 20, ContentBytes: 64 << 20}

	task := runner.Task{
		Request: r, Alone: b.alone,
		OpenStorage: func(ctx context.Context) (runner.Storage, error) {
			st, err := store.Open(ctx, settings.Settings{Kind: settings.Filesystem, Path: filepath.Join(b.dir, "store")}, nil, "repository",
				store.Options{RetryFor: -1, ReadOnly: readOnly(r.Verb)})
			if err != nil {
				return nil, err
			}

			return store.NewBroker(st, store.BrokerOptions{ReadOnly: readOnly(r.Verb)}), nil
		},
	}
	if volume != "" {
		task.OpenVolume = func(context.Context) (*os.File, error) { return os.Open(volume) }
	}

	var fences protocol.Fences

	result, err := runner.New(runner.Config{Executable: start, MemoryCeiling: b.ceiling}).Run(b.t.Context(), task, runner.Watch{
		Fences: func(f protocol.Fences) { fences = f },
	})

	return result, fences, err
}
