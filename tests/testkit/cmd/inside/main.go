// Command inside is for the end-to-end tests: they copy it into the pod of a
// node's daemon and run it there, with the daemon's user, capabilities and
// filters. It starts a worker by production's own runner, whose two stages are
// production's own, too; behind all fences the worker tries what it must not be
// able to do, and what the broker must not give it. It must not be shipped.
//
// Usage: inside probe < TASK > FINDINGS (both are JSON, see package probe)
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
	"github.com/estiba-dev/estiba/mover/worker"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
	"github.com/estiba-dev/estiba/tests/testkit/probe"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}

	switch os.Args[1] {
	case protocol.CommandLockIn:
		os.Exit(worker.LockIn(os.Args[2:]))
	case protocol.CommandRun:
		os.Exit(worker.Run(os.Args[2:], worker.Deps{NewEngine: newEngine}))
	case "probe":
		if err := run(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(2)
	}
}

// run runs one worker, as the daemon does.
func run(ctx context.Context) error {
	var t probe.Task
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}

	readOnly := t.Verb == protocol.VerbRestore

	st, err := store.Open(ctx, t.Store, settings.Static(t.Credentials), t.Folder, store.Options{RetryFor: -1, ReadOnly: readOnly})
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer st.Close(ctx) //nolint:errcheck // what counts is what was found

	request := workertest.Request(t.Verb, workertest.Probe, t.CacheDir)

	attempts, err := json.Marshal(t.Attempts)
	if err != nil {
		return fmt.Errorf("hand over what to try: %w", err)
	}

	if request.Backup != nil {
		request.Backup.Job = string(attempts)
	} else {
		request.Restore.Job = string(attempts)
	}

	var fences protocol.Fences

	result, err := runner.New(runner.Config{Strict: true}).Run(ctx, runner.Task{
		Request:    request,
		OpenVolume: func(context.Context) (*os.File, error) { return os.Open(t.Volume) },
		OpenStorage: func(context.Context) (runner.Storage, error) {
			return store.NewBroker(st, store.BrokerOptions{ReadOnly: readOnly}), nil
		},
	}, runner.Watch{Fences: func(f protocol.Fences) { fences = f }})
	if err != nil {
		return fmt.Errorf("run the worker: %w", err)
	}

	text := ""
	if result.Backup != nil {
		text = workertest.FoundIn(result.Backup.Summary)
	} else if result.Restore != nil {
		text = workertest.FoundIn(result.Restore.Summary)
	}

	var found probe.Findings
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return fmt.Errorf("read what the worker found: %w: %s", err, text)
	}

	found.Fences = fences

	return json.NewEncoder(os.Stdout).Encode(found)
}

// prober is an engine that moves nothing.
type prober struct {
	engine.Engine

	settings worker.Settings
}

func newEngine(_ context.Context, s worker.Settings) (engine.Engine, error) {
	return &prober{settings: s}, nil
}

// Backup probes.
func (p *prober) Backup(ctx context.Context, r engine.BackupRequest, _ engine.ProgressFunc) (engine.BackupResult, error) {
	found, err := p.probe(ctx, r.Root, r.Job)

	return engine.BackupResult{Summary: workertest.Found(found)}, err
}

// Restore probes.
func (p *prober) Restore(ctx context.Context, r engine.RestoreRequest, _ engine.ProgressFunc) (engine.RestoreResult, error) {
	found, err := p.probe(ctx, r.Root, r.Job)

	return engine.RestoreResult{Summary: workertest.Found(found)}, err
}

func (p *prober) probe(ctx context.Context, root *os.File, job string) (string, error) {
	var a probe.Attempts
	if err := json.Unmarshal([]byte(job), &a); err != nil {
		return "", fmt.Errorf("read what to try: %w", err)
	}

	answers, err := ask(ctx, p.settings.Storage, a.Requests)
	if err != nil {
		return "", err
	}

	found, err := json.Marshal(probe.Findings{Findings: workertest.Try(root, p.settings.Cache.Dir, a.Files...), Answers: answers})
	if err != nil {
		return "", fmt.Errorf("encode what was found: %w", err)
	}

	return string(found), nil
}

// maxAnswer is how much of an answer's body is told.
const maxAnswer = 4096

// ask sends requests to the broker, byte by byte as they are, past the client that would not make them.
func ask(ctx context.Context, socket *os.File, requests []string) (map[string]probe.Answer, error) {
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, fmt.Errorf("use the storage socket: %w", err)
	}

	var protocols http.Protocols

	protocols.SetUnencryptedHTTP2(true)

	transport := &http.Transport{
		Protocols:   &protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	answers := map[string]probe.Answer{}

	for _, line := range requests {
		method, target, _ := strings.Cut(line, " ")

		var body io.Reader
		if method == http.MethodPut {
			body = strings.NewReader("not to be written")
		}

		req, err := http.NewRequestWithContext(ctx, method, "http://broker"+target, body)
		if err != nil {
			return nil, fmt.Errorf("make request %s: %w", line, err)
		}

		res, err := transport.RoundTrip(req)
		if err != nil {
			return nil, fmt.Errorf("send request %s: %w", line, err)
		}

		text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		_ = res.Body.Close()

		if err != nil {
			return nil, fmt.Errorf("read the answer to %s: %w", line, err)
		}

		answers[line] = probe.Answer{Status: res.StatusCode, Body: text}
	}

	return answers, nil
}
