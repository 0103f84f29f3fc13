// Command runtests runs the project's tests stage by stage, prints what failed
// and closes with one line that counts them. It is what `make test` calls; it
// must not know what any single test does, but that one comes after all others.
//
// Usage: runtests STAGE[,STAGE...]...
//
// Stages: unit (all packages, race detector on), attack (the walk and the write
// under attack, long), e2e (inside the local cluster, which must be up), rights
// (after all of e2e: what is granted and no test has used), e2e-slow (those of them that take too long for every day, or want a cluster of their own kind). Stages
// joined by commas run one after another, beside those of the other arguments:
// the end-to-end tests mostly wait, while the others keep the processors busy.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, lanes []string) int {
	if len(lanes) == 0 {
		fmt.Fprintln(os.Stderr, "runtests: name at least one stage: unit, attack, e2e, rights, e2e-slow")

		return 2
	}

	var (
		out   = &lines{w: os.Stdout}
		total tally
		mu    sync.Mutex
		wait  sync.WaitGroup
	)

	for _, lane := range lanes {
		wait.Go(func() {
			for _, name := range strings.Split(lane, ",") {
				result := timed(ctx, name, out)

				mu.Lock()
				total.add(result)
				mu.Unlock()
			}
		})
	}

	wait.Wait()
	fmt.Println(total)

	if total.failed > 0 || total.passed == 0 {
		return 1
	}

	return 0
}

// lines keeps what the stages of several lanes write at the same time apart.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.w.Write(p)
}

// timed runs a stage and says how it went and how long it took.
func timed(ctx context.Context, name string, out io.Writer) tally {
	start := time.Now()
	_, _ = fmt.Fprintf(out, "=== stage %s\n", name)

	result, err := runStage(ctx, name, out)
	if err != nil {
		_, _ = fmt.Fprintf(out, "stage %s: %v\n", name, err)
		// A stage that can't be run is a failure, whatever its tests said.
		result.failed = max(result.failed, 1)
	}

	_, _ = fmt.Fprintf(out, "=== stage %s: %s, %s\n", name, result, time.Since(start).Round(time.Second))

	return result
}

func runStage(ctx context.Context, name string, out io.Writer) (tally, error) {
	switch name {
	case "unit":
		// With its tag "testing" kopia knows the cheap key derivation of tests/testkit/prepared.
		return goTest(ctx, patiently(ctx, "go", "test", "-race", "-tags", "testing", "-json", "-timeout", "20m", "./..."), out)
	case "attack":
		cmd := patiently(ctx, "go", "test", "-json", "-count=1", "-timeout", "30m", "-run", "Attack", "./mover/beneath/...")
		cmd.Env = append(os.Environ(), "ESTIBA_ATTACK_SECONDS="+envOr("ESTIBA_ATTACK_SECONDS", "30"))

		return goTest(ctx, cmd, out)
	case "e2e":
		return e2e(ctx, "e2e", os.Getenv("ESTIBA_E2E_RUN"), out)
	case "e2e-slow":
		// The test that needs it fails by itself where it can't be had.
		image := exec.CommandContext(ctx, "go", "run", "./tests/cluster/cmd/cluster", "load-postgresql")
		if said, err := image.CombinedOutput(); err != nil {
			_, _ = fmt.Fprintf(out, "no image of PostgreSQL: %v\n%s", err, said)
		}

		return e2e(ctx, "e2e slow", envOr("ESTIBA_E2E_RUN", "^TestSlow"), out)
	case "rights":
		return e2e(ctx, "e2e", "^TestNoRightIsGrantedThatIsNotUsed$", out, "ESTIBA_E2E_AFTER_ALL=yes")
	default:
		return tally{}, fmt.Errorf("there is no stage %q (unit, attack, e2e, rights, e2e-slow)", name)
	}
}

// patiently prepares a command that leaves the processors to the cluster of the end-to-end tests, which may run beside it.
func patiently(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nice", append([]string{"-n", "5"}, args...)...)
}

// together is how many of the end-to-end tests that disturb nobody run at once. They mostly wait: for pods, for
// namespaces to go, for Velero's next look at its operations.
const together = "4"

// e2e compiles the tests outside of the cluster, where the module cache is, and
// runs them inside of its namespaces: those that are built with the tags and whose names match.
func e2e(ctx context.Context, tags, only string, out io.Writer, env ...string) (tally, error) {
	bin, err := filepath.Abs("_output/e2e.test")
	if err != nil {
		return tally{}, err
	}

	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", tags, "-o", bin, "./tests/e2e")
	if said, err := build.CombinedOutput(); err != nil {
		return tally{}, fmt.Errorf("compile tests/e2e: %w\n%s", err, said)
	}

	// What a test runs in the daemon's pod; like the daemon it has no use for shared libraries.
	inside := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(filepath.Dir(bin), "inside"), "./tests/testkit/cmd/inside")

	inside.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := inside.CombinedOutput(); err != nil {
		return tally{}, fmt.Errorf("compile tests/testkit/cmd/inside: %w\n%s", err, said)
	}

	args := []string{"run", "./tests/cluster/cmd/cluster", "exec", "--", "go", "tool", "test2json", "-t", "-p", "e2e", bin, "-test.v=test2json", "-test.timeout=40m", "-test.parallel=" + together}
	if only != "" {
		args = append(args, "-test.run="+only)
	}

	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), env...)

	return goTest(ctx, cmd, out)
}

func goTest(ctx context.Context, cmd *exec.Cmd, to io.Writer) (tally, error) {
	cmd.Stderr = os.Stderr

	out, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, err
	}

	if err := cmd.Start(); err != nil {
		return tally{}, fmt.Errorf("start %s: %w", strings.Join(cmd.Args, " "), err)
	}

	result := read(out, to)
	err = cmd.Wait()

	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	// A non-zero exit without a failed test is a package that doesn't compile, or a crash.
	if err != nil && result.failed == 0 {
		return result, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}

	return result, nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}

	return otherwise
}
