//go:build slow

package app

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/tests/testkit/tree"
)

// bench is a repository, and workers of the real program for it that have only
// the capabilities that they are given.
type bench struct {
	t       *testing.T
	program string
	dir     string
	// ceiling of a worker's memory, in bytes; 0 is no bound. alone has it move one file at a time.
	ceiling int64
	alone   bool
}

func newBench(t *testing.T) *bench {
	t.Helper()

	if os.Geteuid() != 0 {
		t.Skip("needs user 0 with all capabilities")
	}

	b := &bench{t: t, dir: t.TempDir()}
	b.program = filepath.Join(b.dir, "mover")

	build := exec.CommandContext(t.Context(), "go", "build", "-o", b.program, "github.com/estiba-dev/estiba/cmd/mover")
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

// Each capability of a worker is taken away alone, with a volume that holds all that a
// backup is to bring back. What fails then stands in the table of docs/security.md.
func TestEachCapabilityOfAWorkerIsNeeded(t *testing.T) {
	b := newBench(t)
	volume := filepath.Join(b.dir, "volume")
	require.NoError(t, os.Mkdir(volume, 0o755))
	require.NoError(t, tree.Nasty(volume))

	_, _, err := b.run(protocol.Request{Verb: protocol.VerbCreateRepository, Format: engine.FormatFast}, "", nil)
	require.NoError(t, err, "making a repository takes no capability")

	backup := protocol.Request{Verb: protocol.VerbBackup, Backup: &engine.BackupRequest{Host: "h", Path: "/v", Instance: "i", Job: "job"}}
	restore := protocol.Request{Verb: protocol.VerbRestore, Restore: &engine.RestoreRequest{Job: "job"}}

	page, err := os.ReadFile("../../docs/security.md")
	require.NoError(t, err)

	for _, test := range []struct {
		request protocol.Request
		without string
		fails   string
	}{
		{backup, "", ""},
		{backup, "DAC_OVERRIDE", "list directory"},
		{restore, "", ""},
		{restore, "CHOWN", "set owner"},
		{restore, "DAC_OVERRIDE", "permission denied"},
		{restore, "FOWNER", "set mode"},
		{restore, "FSETID", "set mode"},
	} {
		t.Run(string(test.request.Verb)+" without "+test.without, func(t *testing.T) {
			b := *b
			b.t = t

			all := []string{"DAC_OVERRIDE"}
			if test.request.Restore != nil {
				all = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"}
			}

			at := volume
			if test.request.Restore != nil {
				// As provisioners make it for the application's user.
				at = t.TempDir()
				require.NoError(t, os.Chown(at, 1000, 1000))
				require.NoError(t, os.Chmod(at, 0o700))
			}

			_, fences, err := b.run(test.request, at, slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == test.without }))

			if test.fails == "" {
				require.NoError(t, err)
				assert.Equal(t, all, fences.Capabilities)
				assert.Empty(t, fences.Lacking)

				diff, err := tree.Compare(volume, at)
				require.NoError(t, err)
				assert.Empty(t, diff)

				return
			}

			require.ErrorContains(t, err, test.fails)
			assert.Equal(t, []string{test.without}, fences.Lacking)
			assert.Contains(t, string(page), fmt.Sprintf("| %s | %s | %s |\n", test.request.Verb, test.without, test.fails))
		})
	}
}
