package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/mover/contract"
)

const (
	// repeatInterval is how often a held gate repeats why.
	repeatInterval = time.Minute
	// silence is how long the node's daemon may write nothing: it writes its line anew every 20 s.
	silence = time.Minute
	// firstWord is how long it may take to its first line: it writes one as soon as this container runs.
	firstWord = 10 * time.Second
	// maxFile bounds what is read, in bytes.
	maxFile = 64 << 10
	// maxTermination is what the kubelet keeps of a termination message, in bytes.
	maxTermination = 4096
)

// The exit statuses of wait.
const (
	exitOpen   = 0
	exitFailed = 1
	// exitStopped is what a shell shows for SIGTERM.
	exitStopped = 128 + 15
)

// waiter waits at one gate.
type waiter struct {
	options options
	out     io.Writer
	ticks   <-chan time.Time

	// progress, failure and complaint are what was last shown.
	progress  string
	failure   string
	complaint string
	shown     time.Time

	// written is when the file of progress was last written, heard when that was first seen here.
	written, heard time.Time
	// missed is when the daemon was last said to be silent.
	missed time.Time
}

func newWaiter(o options, out io.Writer, ticks <-chan time.Time) *waiter {
	return &waiter{options: o, out: out, ticks: ticks}
}

// wait looks at the gate, and again with each tick, and returns the exit status.
func (w *waiter) wait(ctx context.Context) int {
	w.say("waiting for the data of this pod's volumes")

	var now time.Time

	for {
		if status, done := w.look(now); done {
			return status
		}

		select {
		case <-ctx.Done():
			w.say("told to stop before the data was there")
			return exitStopped
		case now = <-w.ticks:
		}
	}
}

// look reads the files once, and reports whether the waiting is over.
func (w *waiter) look(now time.Time) (status int, done bool) {
	w.showProgress()

	content, err := w.read(contract.GateOutcomeFile)
	if err != nil {
		w.complain(err)
		return 0, false
	}

	if content == nil {
		w.listen(now)
		return 0, false
	}

	outcome, err := contract.DecodeGateOutcome(content)
	if err != nil {
		w.complain(err)
		return 0, false
	}

	if outcome.State == contract.GateOpen {
		w.say("the data is there")
		return exitOpen, true
	}

	return w.failed(now, outcome.Message)
}

// failed says why the gate stays closed. A held gate goes on looking: the restore
// may be tried again, or the gate be opened by hand.
func (w *waiter) failed(now time.Time, message string) (status int, done bool) {
	if w.options.onFailure == exitOnFailure {
		w.say("the restore failed: " + message)
		w.leaveMessage(message)

		return exitFailed, true
	}

	if message != w.failure || now.Sub(w.shown) >= repeatInterval {
		w.failure, w.shown = message, now
		w.say("the restore failed, and this pod is kept from starting without its data: " + message)
	}

	return 0, false
}

// leaveMessage writes the termination message. Without it the log still tells.
func (w *waiter) leaveMessage(message string) {
	if len(message) > maxTermination {
		message = strings.ToValidUTF8(message[:maxTermination], "")
	}

	if err := os.WriteFile(w.options.terminationLog, []byte(message), 0o600); err != nil {
		w.say(fmt.Sprintf("write the termination message: %v", err))
	}
}

func (w *waiter) showProgress() {
	content, err := w.read(contract.GateProgressFile)
	if err != nil {
		w.complain(err)
		return
	}

	if line := strings.TrimSpace(string(content)); line != w.progress {
		w.progress = line
		w.say(line)
	}
}

// listen says each minute that there is no word from the node's daemon, if there
// is none: nobody else can tell on a node that has no daemon.
func (w *waiter) listen(now time.Time) {
	var written time.Time
	if info, err := os.Stat(filepath.Join(w.options.gate, contract.GateProgressFile)); err == nil {
		written = info.ModTime()
	}

	if w.heard.IsZero() || !written.Equal(w.written) {
		w.written, w.heard, w.missed = written, now, now
		return
	}

	bound := silence
	if written.IsZero() {
		bound = firstWord
	}

	if now.Sub(w.heard) < bound || !w.missed.Equal(w.heard) && now.Sub(w.missed) < repeatInterval {
		return
	}

	w.missed = now
	w.say(fmt.Sprintf("no word from the node's daemon for %d s; see whether the DaemonSet estiba-node has a pod on this node that is ready", int(now.Sub(w.heard).Seconds())))
}

// complain says an error once, for as long as it is the same.
func (w *waiter) complain(err error) {
	if text := err.Error(); text != w.complaint {
		w.complaint = text
		w.say(text)
	}
}

// read returns the content of a file, and nil where there is none.
func (w *waiter) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(w.options.gate, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}

	if err != nil {
		return nil, fmt.Errorf("read the gate: %w", err)
	}
	defer func() { _ = f.Close() }()

	content, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read the gate: %w", err)
	}

	return content, nil
}

// say writes a line. Nobody can be told that it can't be written.
func (w *waiter) say(line string) {
	_, _ = fmt.Fprintln(w.out, line)
}
