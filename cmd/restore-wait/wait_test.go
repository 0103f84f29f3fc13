package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		args []string
		want options
		err  string
	}{
		"nothing asks for the defaults": {want: options{gate: "/estiba-gate", onFailure: exitOnFailure, terminationLog: "/dev/termination-log"}},
		"all of them": {
			args: []string{"--gate=/g", "--on-failure=hold", "--termination-log=/t"},
			want: options{gate: "/g", onFailure: holdOnFailure, terminationLog: "/t"},
		},
		"a staging pod's": {
			args: []string{contract.StagingHold},
			want: options{gate: "/estiba-gate", onFailure: exitOnFailure, terminationLog: "/dev/termination-log", hold: true},
		},
		"a flag that is not known": {
			args: []string{"--gates=/g"},
			err:  "flag provided but not defined: -gates; known are --gate, --on-failure, --termination-log and --hold",
		},
		"an argument":               {args: []string{"x"}, err: `argument "x" is not expected`},
		"a choice that is none":     {args: []string{"--on-failure=sleep"}, err: `--on-failure is "sleep", expected exit or hold`},
		"a gate that leads nowhere": {args: []string{"--gate="}, err: "--gate is empty"},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse(test.args, io.Discard)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}

			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestHelpIsShownAndIsNoError(t *testing.T) {
	var out bytes.Buffer

	_, err := parse([]string{"--help"}, &out)
	require.ErrorIs(t, err, flag.ErrHelp)

	for _, name := range []string{"gate", "on-failure", "termination-log", "hold"} {
		assert.Contains(t, out.String(), "-"+name)
	}
}

func TestHoldingEndsWell(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())

	var out bytes.Buffer

	ended := make(chan int, 1)
	go func() { ended <- hold(ctx, &out) }()

	stop()
	assert.Zero(t, <-ended)
	assert.Contains(t, out.String(), "keeps a volume mounted")
}

// moment is what the mover has written when the gate is looked at, and how much
// later that is than the moment before.
type moment struct {
	after    time.Duration
	progress string
	outcome  string
	// kept leaves the files as they are.
	kept bool
}

const (
	open   = `{"version":1,"state":"open"}`
	noRoom = `{"version":1,"state":"failed","message":"volume data: no room"}`
)

// show writes the moment's files into the gate.
func (m moment) show(t *testing.T, folder string) {
	t.Helper()

	if m.kept {
		return
	}

	for name, content := range map[string]string{contract.GateProgressFile: m.progress, contract.GateOutcomeFile: m.outcome} {
		path := filepath.Join(folder, name)

		if content == "" {
			require.NoError(t, os.RemoveAll(path))
			continue
		}

		// As the daemon does it: whoever looks sees all of it, or nothing.
		written := path + ".new"
		require.NoError(t, os.WriteFile(written, []byte(content), 0o600))
		require.NoError(t, os.Rename(written, path))
	}
}

func TestLook(t *testing.T) {
	const missed = "no word from the node's daemon for N s; see whether the DaemonSet estiba-node has a pod on this node that is ready\n"

	const kept = "the restore failed, and this pod is kept from starting without its data: volume data: no room\n"

	tests := map[string]struct {
		onFailure   onFailure
		moments     []moment
		status      int
		done        bool
		said        string
		termination string
	}{
		"an empty gate is waited at": {onFailure: exitOnFailure, moments: []moment{{}, {}}},
		"a line of progress is shown when it changes": {
			onFailure: exitOnFailure,
			moments:   []moment{{progress: "1 of 2\n"}, {progress: "1 of 2\n"}, {progress: "2 of 2\n"}},
			said:      "1 of 2\n2 of 2\n",
		},
		"a daemon that never speaks is missed soon, and then each minute": {
			onFailure: exitOnFailure,
			moments:   []moment{{}, {after: 9 * time.Second}, {after: time.Second}, {after: 59 * time.Second}, {after: time.Second}},
			said:      strings.Replace(missed, "N", "10", 1) + strings.Replace(missed, "N", "70", 1),
		},
		"a daemon that goes silent is missed": {
			onFailure: exitOnFailure,
			moments:   []moment{{}, {after: 50 * time.Second, progress: "1 of 2"}, {after: 50 * time.Second, kept: true}, {after: 10 * time.Second, kept: true}},
			said:      "1 of 2\n" + strings.Replace(missed, "N", "60", 1),
		},
		"an open gate lets the pod start": {
			onFailure: exitOnFailure, moments: []moment{{progress: "1 of 1"}, {progress: "1 of 1", outcome: open}},
			status: 0, done: true, said: "1 of 1\nthe data is there\n",
		},
		"a failed restore leaves its message": {
			onFailure: exitOnFailure, moments: []moment{{outcome: noRoom}},
			status: 1, done: true, said: "the restore failed: volume data: no room\n", termination: "volume data: no room",
		},
		"a held gate repeats the message each minute": {
			onFailure: holdOnFailure,
			moments: []moment{
				{outcome: noRoom},
				{after: 59 * time.Second, outcome: noRoom},
				{after: time.Second, outcome: noRoom},
				{after: 59 * time.Second, outcome: noRoom},
			},
			said: kept + kept,
		},
		"a held gate shows another message at once": {
			onFailure: holdOnFailure,
			moments:   []moment{{outcome: noRoom}, {after: time.Second, outcome: strings.Replace(noRoom, "no room", "no right", 1)}},
			said:      kept + strings.Replace(kept, "no room", "no right", 1),
		},
		"a held gate can be opened": {
			onFailure: holdOnFailure, moments: []moment{{outcome: noRoom}, {outcome: open}},
			status: 0, done: true, said: kept + "the data is there\n",
		},
		"what can't be read is complained of once, and waited for": {
			onFailure: exitOnFailure,
			moments:   []moment{{outcome: "{"}, {outcome: "{"}, {outcome: open}},
			status:    0, done: true,
			said: "gate outcome: unreadable record: unexpected end of JSON input\nthe data is there\n",
		},
		"a message as long as a book is cut off": {
			onFailure:   exitOnFailure,
			moments:     []moment{{outcome: strings.Replace(noRoom, "volume data: no room", strings.Repeat("x", 5000), 1)}},
			status:      1,
			done:        true,
			said:        "the restore failed: " + strings.Repeat("x", 5000) + "\n",
			termination: strings.Repeat("x", 4096),
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			termination := filepath.Join(t.TempDir(), "termination-log")

			var (
				out    bytes.Buffer
				status int
				done   bool
			)

			now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			w := newWaiter(options{gate: folder, onFailure: test.onFailure, terminationLog: termination}, &out, nil)

			for i, m := range test.moments {
				require.False(t, done, "over before moment %d", i)

				now = now.Add(m.after)
				m.show(t, folder)

				status, done = w.look(now)
			}

			assert.Equal(t, test.done, done)
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.said, out.String())

			if test.termination == "" {
				assert.NoFileExists(t, termination)
				return
			}

			content, err := os.ReadFile(termination)
			require.NoError(t, err)
			assert.Equal(t, test.termination, string(content))
		})
	}
}

func TestWait(t *testing.T) {
	folder := t.TempDir()
	ticks := make(chan time.Time)
	ended := make(chan int)

	var out bytes.Buffer

	go func() {
		ended <- newWaiter(options{gate: folder, onFailure: exitOnFailure}, &out, ticks).wait(t.Context())
	}()

	// It takes the second tick when it has looked at the first one.
	ticks <- time.Time{}
	ticks <- time.Time{}

	moment{outcome: open}.show(t, folder)

	for status := -1; status < 0; {
		select {
		case ticks <- time.Time{}:
		case status = <-ended:
			assert.Equal(t, 0, status)
		}
	}

	assert.Equal(t, "waiting for the data of this pod's volumes\nthe data is there\n", out.String())
}

func TestWaitIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	var out bytes.Buffer

	w := newWaiter(options{gate: t.TempDir(), onFailure: holdOnFailure}, &out, nil)

	assert.Equal(t, 143, w.wait(ctx))
	assert.Contains(t, out.String(), "told to stop")
}

func TestAFailedRestoreWithoutTerminationLog(t *testing.T) {
	folder := t.TempDir()
	moment{outcome: noRoom}.show(t, folder)

	var out bytes.Buffer

	w := newWaiter(options{gate: folder, onFailure: exitOnFailure, terminationLog: "/nowhere/at/all"}, &out, nil)

	assert.Equal(t, 1, w.wait(t.Context()))
	assert.Contains(t, out.String(), "write the termination message: open /nowhere/at/all")
}
