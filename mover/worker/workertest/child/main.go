// Command child is the program that tests start as a worker; see package workertest.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
	"github.com/estiba-dev/estiba/mover/worker/workertest"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}

	switch os.Args[1] {
	case workertest.CommandHideLandlock:
		fmt.Fprintln(os.Stderr, hide(unix.SYS_LANDLOCK_CREATE_RULESET, os.Args[2:]))
	case workertest.CommandHideOpenat2:
		fmt.Fprintln(os.Stderr, hide(unix.SYS_OPENAT2, os.Args[2:]))
	case protocol.CommandLockIn:
		os.Exit(worker.LockIn(os.Args[2:]))
	case protocol.CommandRun:
		os.Exit(worker.Run(os.Args[2:], worker.Deps{NewEngine: newEngine, SetLinks: setLinks, Tick: beneath.Tick}))
	}

	os.Exit(2)
}

func newEngine(_ context.Context, s worker.Settings) (engine.Engine, error) {
	s.Log.Info("the engine was made", "password", len(s.Password))

	return &scripted{settings: s}, nil
}

// scripted is an engine that does what its request's job says.
type scripted struct{ settings worker.Settings }

// CreateRepository runs the script that the format names.
func (e *scripted) CreateRepository(ctx context.Context, f engine.Format) error {
	_, err := e.do(ctx, workertest.Script(f), nil, func(engine.Progress) {})
	return err
}

// RotateKey does nothing.
func (e *scripted) RotateKey(context.Context) error { return nil }

// Backup runs the script that the job names.
func (e *scripted) Backup(ctx context.Context, r engine.BackupRequest, p engine.ProgressFunc) (engine.BackupResult, error) {
	if workertest.Script(r.Job) == workertest.Parallel {
		return engine.BackupResult{SnapshotID: fmt.Sprintf("%d of %d", r.Parallel, r.FlushAfter)}, nil
	}

	s := workertest.Script(r.Job)
	if s == workertest.Grow || s == workertest.Linger {
		return engine.BackupResult{}, grow(ctx, s, r.WindUp, p)
	}

	text, err := e.do(ctx, s, r.Root, p)

	if s == workertest.Probe {
		return engine.BackupResult{Summary: workertest.Found(text)}, err
	}

	return engine.BackupResult{SnapshotID: text}, err
}

// Restore runs the script that the job names.
func (e *scripted) Restore(ctx context.Context, r engine.RestoreRequest, p engine.ProgressFunc) (engine.RestoreResult, error) {
	if workertest.Script(r.Job) == workertest.Write {
		if err := r.BeforeWrite(ctx, "begun"); err != nil {
			return engine.RestoreResult{}, err
		}
	}

	if s := workertest.Script(r.Job); s == workertest.Links || s == workertest.LinkThatFails {
		return engine.RestoreResult{SnapshotID: "linked"}, r.LinkAttributes(engine.LinkAttributes{Path: []byte(s)})
	}

	s := workertest.Script(r.Job)
	text, err := e.do(ctx, s, r.Root, p)

	if s == workertest.Probe {
		return engine.RestoreResult{Summary: workertest.Found(text)}, err
	}

	return engine.RestoreResult{SnapshotID: text}, err
}

// Forget runs the script that the job names.
func (e *scripted) Forget(ctx context.Context, r engine.ForgetRequest) (engine.ForgetResult, error) {
	_, err := e.do(ctx, workertest.Script(r.Job), nil, func(engine.Progress) {})
	return engine.ForgetResult{Deleted: 1}, err
}

// Snapshots returns one snapshot.
func (e *scripted) Snapshots(context.Context) ([]engine.Snapshot, error) {
	return []engine.Snapshot{{ID: "listed"}}, nil
}

func (e *scripted) do(ctx context.Context, s workertest.Script, root *os.File, p engine.ProgressFunc) (string, error) {
	p(engine.Progress{BytesDone: 1, TotalBytes: 2})

	switch s {
	case workertest.Succeed, workertest.Write:
		p(engine.Progress{BytesDone: 2, TotalBytes: 2})
		return "done", nil
	case workertest.Probe:
		return findings(root, e.settings.Cache.Dir)
	case workertest.Wait:
		<-ctx.Done()
		return "", engine.Errorf(engine.CodeCanceled, "wait: %w", ctx.Err())
	case workertest.Deaf:
		select {}
	case workertest.Allocate:
		return "", allocate(nil, func(int64) {})
	case workertest.Hang:
		return "", hang(ctx, root, p)
	case workertest.Panic:
		panic("the engine is at its end")
	case workertest.Exit:
		os.Exit(7)
	case workertest.Fail:
		return "", engine.Errorf(engine.CodeStoreUnavailable, "the store is away")
	case workertest.Fetch:
		return e.fetch()
	case workertest.Cancel:
		return "", engine.Errorf(engine.CodeCanceled, "somebody said stop")
	case workertest.Parallel, workertest.Links, workertest.LinkThatFails, workertest.Grow, workertest.Linger:
		// They are of one verb each, which does them itself.
	}

	return "", fmt.Errorf("script %q is unknown", s)
}

// grow takes memory until it is told to wind up.
func grow(ctx context.Context, s workertest.Script, windUp <-chan struct{}, p engine.ProgressFunc) error {
	err := allocate(windUp, func(n int64) { p(engine.Progress{BytesDone: n}) })
	p(engine.Progress{FilesDone: 1})

	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()

	for s == workertest.Linger {
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
			p(engine.Progress{FilesDone: 1}) // Not every one is passed on.
		}
	}

	return err
}

// allocate takes memory until it is told to stop, some 100 MiB in a second.
func allocate(stop <-chan struct{}, took func(bytes int64)) error {
	const piece, most = 5 << 20, 400

	var held [][]byte

	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()

	for len(held) < most {
		select {
		case <-stop:
			return engine.Errorf(engine.CodeCanceled, "take memory: it was told to stop")
		case <-tick.C:
		}

		b := make([]byte, piece)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}

		held = append(held, b)
		took(int64(len(held)) * piece)
	}

	return fmt.Errorf("nobody stopped the allocation of %d pieces", len(held))
}

// setLinks fails at the link that is to.
func setLinks(_ context.Context, _ *os.File, leaveOut bool, next func() (engine.LinkAttributes, error)) ([]engine.Omission, error) {
	for {
		link, err := next()
		if err != nil {
			return nil, ignoreEnd(err)
		}

		switch {
		case workertest.Script(link.Path) != workertest.LinkThatFails:
		case leaveOut:
			return []engine.Omission{{Reason: engine.OmittedOwner, Count: 1}}, nil
		default:
			return nil, engine.Errorf(engine.CodeTargetUnwritable, "link %s can't be set", link.Path)
		}
	}
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}

	return err
}

// hang makes a file, which takes for ever in a file system that is frozen.
func hang(ctx context.Context, root *os.File, p engine.ProgressFunc) error {
	made := make(chan error, 1)

	go func() {
		volume, err := beneath.Open(root, beneath.Options{})
		if err == nil {
			p(engine.Progress{FilesDone: 1})
			_, err = volume.Dir().CreateFile("file", 0)
		}

		made <- err
	}()

	select {
	case err := <-made:
		return err
	case <-ctx.Done():
		return engine.Errorf(engine.CodeCanceled, "make a file: %w", ctx.Err())
	}
}

func (e *scripted) fetch() (string, error) {
	conn, err := net.FileConn(e.settings.Storage)
	if err != nil {
		return "", fmt.Errorf("use the storage socket: %w", err)
	}
	defer func() { _ = conn.Close() }()

	if _, err := io.WriteString(conn, "daemon\n"); err != nil {
		return "", fmt.Errorf("ask the storage: %w", err)
	}

	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read the storage's answer: %w", err)
	}

	return strings.TrimSpace(answer), nil
}

func findings(root *os.File, cacheDir string) (string, error) {
	b, err := json.Marshal(workertest.Try(root, cacheDir))
	if err != nil {
		return "", fmt.Errorf("encode findings: %w", err)
	}

	return string(b), nil
}
