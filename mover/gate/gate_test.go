package gate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/gate"
)

// clock is a time that goes on by an hour with each look at it.
type clock struct{ at time.Time }

func (c *clock) now() time.Time {
	c.at = c.at.Add(time.Hour)
	return c.at
}

func open(t *testing.T, folder string) *gate.Gate {
	t.Helper()

	dir, err := os.Open(folder)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, dir.Close()) })

	c := &clock{at: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)}
	g, err := gate.Open(dir, c.now)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })

	return g
}

func failed(message string) contract.GateOutcome {
	return contract.GateOutcome{Version: 1, State: contract.GateFailed, Message: message}
}

func opened() contract.GateOutcome { return contract.GateOutcome{Version: 1, State: contract.GateOpen} }

func TestOutcomes(t *testing.T) {
	tests := map[string]struct {
		outcomes []contract.GateOutcome
		err      error
		want     contract.GateOutcome
	}{
		"the gate opens":                       {outcomes: []contract.GateOutcome{opened()}, want: opened()},
		"the restore failed":                   {outcomes: []contract.GateOutcome{failed("no room")}, want: failed("no room")},
		"a failed restore that is tried again": {outcomes: []contract.GateOutcome{failed("no room"), opened()}, want: opened()},
		"another failure replaces the first":   {outcomes: []contract.GateOutcome{failed("a"), failed("b")}, want: failed("b")},
		"opening what is open is no error":     {outcomes: []contract.GateOutcome{opened(), opened()}, want: opened()},
		"an open gate is not closed":           {outcomes: []contract.GateOutcome{opened(), failed("late")}, err: gate.ErrFinal, want: opened()},
		"an outcome that is none is not written": {
			outcomes: []contract.GateOutcome{failed("a"), {State: "ajar"}}, err: contract.ErrRecord, want: failed("a"),
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			g := open(t, folder)

			var err error
			for _, o := range test.outcomes {
				err = g.SetOutcome(o)
			}

			require.ErrorIs(t, err, test.err)

			state, err := g.Read()
			require.NoError(t, err)
			assert.Equal(t, gate.State{Outcome: &test.want}, state)

			info, err := os.Stat(filepath.Join(folder, contract.GateOutcomeFile))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o644), info.Mode())

			entries, err := os.ReadDir(folder)
			require.NoError(t, err)
			assert.Len(t, entries, 1, "nothing but the outcome lies there")
		})
	}
}

func TestProgress(t *testing.T) {
	tests := map[string]struct{ line, want string }{
		"a line":                        {line: "data: 5 of 10 MiB", want: "data: 5 of 10 MiB"},
		"several lines become one":      {line: "a\nb\r\n\tc\n", want: "a b   c"},
		"a long one is cut off":         {line: strings.Repeat("é", 400), want: strings.Repeat("é", 256)},
		"no half characters at its end": {line: "x" + strings.Repeat("é", 400), want: "x" + strings.Repeat("é", 255)},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := open(t, t.TempDir())
			require.NoError(t, g.SetProgress(test.line))

			state, err := g.Read()
			require.NoError(t, err)
			assert.Equal(t, gate.State{Progress: test.want}, state)
		})
	}
}

func TestAnOutcomeIsWrittenOnceAndALineIsASignOfLife(t *testing.T) {
	folder := t.TempDir()
	g := open(t, folder)

	written := func(name string) time.Time {
		info, err := os.Stat(filepath.Join(folder, name))
		require.NoError(t, err)

		return info.ModTime()
	}

	require.NoError(t, g.SetProgress("half"))
	require.NoError(t, g.SetOutcome(failed("a")))

	progress, outcome := written(contract.GateProgressFile), written(contract.GateOutcomeFile)

	require.NoError(t, g.SetProgress("half"))
	require.NoError(t, g.SetOutcome(failed("a")))
	assert.NotEqual(t, progress, written(contract.GateProgressFile))
	assert.Equal(t, outcome, written(contract.GateOutcomeFile))
}

func TestWhatStandsInTheWay(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	require.NoError(t, os.WriteFile(canary, []byte("canary"), 0o600))

	tests := map[string]struct {
		plant func(t *testing.T, path string)
	}{
		"nothing":                  {plant: func(*testing.T, string) {}},
		"a link to another file":   {plant: func(t *testing.T, path string) { require.NoError(t, os.Symlink(canary, path)) }},
		"a hard link to another":   {plant: func(t *testing.T, path string) { require.NoError(t, os.Link(canary, path)) }},
		"a folder":                 {plant: func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o755)) }},
		"an outcome of no meaning": {plant: func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, []byte("{"), 0o600)) }},
		"an outcome of a release to come": {plant: func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(`{"version":2,"state":"open"}`), 0o600))
		}},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			test.plant(t, filepath.Join(folder, contract.GateOutcomeFile))

			g := open(t, folder)
			state, err := g.Read()
			require.NoError(t, err)
			assert.Nil(t, state.Outcome)

			require.NoError(t, g.SetOutcome(failed("no room")))

			state, err = g.Read()
			require.NoError(t, err)
			assert.Equal(t, failed("no room"), *state.Outcome)

			content, err := os.ReadFile(canary)
			require.NoError(t, err)
			assert.Equal(t, "canary", string(content))
		})
	}
}
