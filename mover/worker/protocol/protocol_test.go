package protocol_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

func request() protocol.Request {
	return protocol.Request{
		Version: protocol.Version, Verb: protocol.VerbBackup, Password: "p",
		Cache:  protocol.Cache{Dir: "/cache/r", MetadataBytes: 1, ContentBytes: 2},
		Strict: true, MemoryCeiling: 3,
		Backup: &engine.BackupRequest{Host: "ns", Path: "/pvc/a", Instance: "i", Job: "vb-1", Tags: map[string]string{"k": "v"}},
	}
}

func TestRequestTravels(t *testing.T) {
	var pipe bytes.Buffer

	require.NoError(t, protocol.WriteRequest(&pipe, request()))

	got, err := protocol.ReadRequest(&pipe)
	require.NoError(t, err)
	assert.Equal(t, request(), got)
}

func TestRequestsThatAreRefused(t *testing.T) {
	tests := map[string]struct {
		change func(*protocol.Request)
		err    string
	}{
		"another version":            {change: func(r *protocol.Request) { r.Version = 2 }, err: "version is 2, expected 1"},
		"a verb that is not known":   {change: func(r *protocol.Request) { r.Verb = "format" }, err: `verb "format" is unknown`},
		"a cache that lies anywhere": {change: func(r *protocol.Request) { r.Cache.Dir = "cache" }, err: `cache.dir is "cache"`},
		"a backup of nothing":        {change: func(r *protocol.Request) { r.Backup = nil }, err: "verb is backup, but its part of the request is missing"},
		"a restore of nothing":       {change: func(r *protocol.Request) { r.Verb = protocol.VerbRestore }, err: "verb is restore, but"},
		"a repository of no format":  {change: func(r *protocol.Request) { r.Verb = protocol.VerbCreateRepository }, err: "verb is create-repository, but"},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := request()
			test.change(&r)

			err := r.Validate()
			require.ErrorContains(t, err, test.err)
			assert.Equal(t, engine.CodeInvalidRequest, engine.CodeOf(err))
			assert.NotContains(t, err.Error(), r.Password+" ")
		})
	}
}

func TestReportsTravel(t *testing.T) {
	var pipe bytes.Buffer

	want := []protocol.Report{
		{Version: 1, Fences: &protocol.Fences{LandlockABI: 7, Capabilities: []string{"CHOWN"}, Missing: []protocol.Fence{protocol.FenceSeccomp}, Detail: "d"}},
		{Version: 1, Progress: &engine.Progress{BytesDone: 1}},
		{Version: 1, Result: &protocol.Result{Backup: &engine.BackupResult{SnapshotID: "s"}}},
	}

	reporter := protocol.NewReporter(&pipe)
	for _, r := range want {
		require.NoError(t, reporter.Report(r))
	}

	assert.Equal(t, 3, strings.Count(pipe.String(), "\n"), "one report is one line")

	var got []protocol.Report

	require.NoError(t, protocol.ReadReports(&pipe, func(r protocol.Report) { got = append(got, r) }))
	assert.Equal(t, want, got)
}

func TestReportsThatAreNone(t *testing.T) {
	tests := map[string]struct{ line, err string }{
		"nonsense":        {line: "hello\n", err: "invalid character"},
		"another version": {line: `{"version":2}` + "\n", err: "version is 2, expected 1"},
		"many values":     {line: `{"version":1,"result":{"snapshots":[` + strings.Repeat("{},", 200_000) + "{}]}}\n", err: "more than 100000 values"},
		"much of nothing": {line: strings.Repeat("[", 20_000) + "\n", err: "exceeded max depth"},
		"no end of it":    {line: strings.Repeat("x", protocol.MaxLine+1), err: "token too long"},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := protocol.ReadReports(strings.NewReader(test.line), func(protocol.Report) { assert.Fail(t, "not a report") })
			require.ErrorContains(t, err, test.err)
		})
	}
}

func TestNoWorkerThatIsSoundReportsThat(t *testing.T) {
	long := strings.Repeat("x", 300)
	many := make([]engine.Omission, 100)

	for name, r := range map[string]protocol.Report{
		"progress backwards":        {Progress: &engine.Progress{BytesDone: -1}},
		"an endless snapshot":       {Writing: long},
		"an unknown fence":          {Fences: &protocol.Fences{Missing: []protocol.Fence{"Moat"}}},
		"endless fences":            {Fences: &protocol.Fences{Capabilities: make([]string, 100)}},
		"a backup of minus one":     {Result: &protocol.Result{Backup: &engine.BackupResult{Summary: engine.Summary{ReadBytes: -1}}}},
		"a restore of minus one":    {Result: &protocol.Result{Restore: &engine.RestoreResult{Summary: engine.Summary{Files: -1}}}},
		"packs found":               {Result: &protocol.Result{Backup: &engine.BackupResult{LostPacks: -1}}},
		"an endless snapshot's ID":  {Result: &protocol.Result{Backup: &engine.BackupResult{SnapshotID: long}}},
		"another":                   {Result: &protocol.Result{Restore: &engine.RestoreResult{SnapshotID: long}}},
		"omissions of minus one":    {Result: &protocol.Result{Backup: &engine.BackupResult{Summary: engine.Summary{Omissions: []engine.Omission{{Reason: "FIFO", Count: -1}}}}}},
		"an endless reason":         {Result: &protocol.Result{Backup: &engine.BackupResult{Summary: engine.Summary{Omissions: []engine.Omission{{Reason: engine.OmissionReason(long)}}}}}},
		"endless reasons":           {Result: &protocol.Result{Restore: &engine.RestoreResult{Summary: engine.Summary{Omissions: many}}}},
		"snapshots that were found": {Result: &protocol.Result{Forget: &engine.ForgetResult{Deleted: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			var pipe bytes.Buffer

			require.NoError(t, protocol.NewReporter(&pipe).Report(r))
			require.ErrorContains(t, protocol.ReadReports(&pipe, func(protocol.Report) { assert.Fail(t, "it is taken") }), "read the worker's report: ")
		})
	}
}

func TestFailuresKeepTheirCode(t *testing.T) {
	assert.Nil(t, protocol.FailureOf(nil))
	require.NoError(t, (*protocol.Failure)(nil).Err())

	err := protocol.FailureOf(fmt.Errorf("backup: %w", engine.Errorf(engine.CodeTargetFull, "no room"))).Err()
	assert.Equal(t, engine.CodeTargetFull, engine.CodeOf(err))
	require.EqualError(t, err, "backup: no room")

	assert.Equal(t, engine.CodeInternal, engine.CodeOf(protocol.FailureOf(errors.New("x")).Err()))
}

func TestAnswers(t *testing.T) {
	tests := map[string]struct {
		verb   protocol.Verb
		result protocol.Result
		want   bool
	}{
		"a backup with its result":           {verb: protocol.VerbBackup, result: protocol.Result{Backup: &engine.BackupResult{}}, want: true},
		"a backup with a restore's":          {verb: protocol.VerbBackup, result: protocol.Result{Restore: &engine.RestoreResult{}}},
		"a restore without any":              {verb: protocol.VerbRestore},
		"a forgetting without any":           {verb: protocol.VerbForget},
		"a repository is made, or an error":  {verb: protocol.VerbCreateRepository, want: true},
		"a list may be empty":                {verb: protocol.VerbList, want: true},
		"an error is an answer to each verb": {verb: protocol.VerbBackup, result: protocol.Result{Error: &protocol.Failure{}}, want: true},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, test.result.Answers(test.verb))
		})
	}
}

func TestSurroundingsTravel(t *testing.T) {
	tests := map[string]struct {
		args []string
		want protocol.Surroundings
		err  string
	}{
		"all of them": {
			args: protocol.Surroundings{Verb: protocol.VerbList, CacheDir: "/c d", Strict: true, Parent: 9, Fences: `{"a":1}`}.Args(),
			want: protocol.Surroundings{Verb: protocol.VerbList, CacheDir: "/c d", Strict: true, Parent: 9, Fences: `{"a":1}`},
		},
		"the least": {
			args: protocol.Surroundings{Verb: protocol.VerbBackup, CacheDir: "/c"}.Args(),
			want: protocol.Surroundings{Verb: protocol.VerbBackup, CacheDir: "/c"},
		},
		"no verb":           {args: []string{"--cache=/c"}, err: `verb "" is unknown`},
		"no cache":          {args: []string{"--verb=list"}, err: "--cache is missing"},
		"a flag of others":  {args: []string{"--volume=/"}, err: "flag provided but not defined: -volume"},
		"an argument alone": {args: []string{"--verb=list", "--cache=/c", "x"}, err: `"x" is not expected`},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := protocol.ParseSurroundings(test.args)
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}

			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}
