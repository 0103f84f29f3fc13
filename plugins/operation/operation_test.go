package operation_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

func name(prefix string, digit string) string { return prefix + strings.Repeat(digit, 40) }

func TestIDRoundTrip(t *testing.T) {
	for _, id := range []operation.ID{
		{Kind: operation.Backup, Jobs: []string{name("vb-", "a")}},
		{Kind: operation.Restore, Jobs: []string{name("vr-", "0"), name("vr-", "1")}},
	} {
		got, err := operation.Parse(id.String())
		require.NoError(t, err)
		assert.Equal(t, id, got)
	}

	assert.Equal(t, "estiba/v1/VolumeBackup/"+name("vb-", "a"), operation.ID{Kind: operation.Backup, Jobs: []string{name("vb-", "a")}}.String())
}

func TestParseIsStrict(t *testing.T) {
	good := name("vb-", "a")

	for title, s := range map[string]string{
		"empty":                 "",
		"somebody else's":       "vsphere/upload-1",
		"another version":       "estiba/v2/VolumeBackup/" + good,
		"no kind":               "estiba/v1/" + good,
		"another kind":          "estiba/v1/Repository/" + good,
		"no job":                "estiba/v1/VolumeBackup/",
		"an empty job":          "estiba/v1/VolumeBackup/" + good + ",",
		"a job twice":           "estiba/v1/VolumeBackup/" + good + "," + good,
		"a job of another kind": "estiba/v1/VolumeRestore/" + good,
		"a job that's a path":   "estiba/v1/VolumeBackup/../../x",
		"capital letters":       "estiba/v1/VolumeBackup/" + name("vb-", "A"),
		"a line's end":          "estiba/v1/VolumeBackup/" + good + "\n",
		"too many jobs":         "estiba/v1/VolumeBackup/" + strings.Repeat(good+",", 2000) + good,
	} {
		t.Run(title, func(t *testing.T) {
			_, err := operation.Parse(s)
			require.ErrorIs(t, err, operation.ErrID)
			assert.Less(t, len(err.Error()), 500)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("estiba/v1/VolumeBackup/" + name("vb-", "a"))
	f.Add("estiba/v1/VolumeRestore/" + name("vr-", "a") + "," + name("vr-", "b"))
	f.Fuzz(func(t *testing.T, s string) {
		id, err := operation.Parse(s)
		if err == nil && id.String() != s {
			t.Fatalf("%q was read as %q", s, id)
		}
	})
}

func TestProgress(t *testing.T) {
	a, b := name("vb-", "a"), name("vb-", "b")
	id := operation.ID{Kind: operation.Backup, Jobs: []string{a, b}}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

	job := func(n, volume string, phase v1alpha1.Phase, done, total int64) jobs.Progress {
		return jobs.Progress{Job: n, Volume: volume, Node: "n", Phase: phase, BytesDone: done, BytesTotal: total, Started: now.Add(-time.Minute)}
	}

	failed := job(b, "logs", v1alpha1.PhaseFailed, 5, 10)
	failed.Reason, failed.Message = "StoreUnavailable", "put blob: timeout"

	canceled := job(b, "logs", v1alpha1.PhaseCanceled, 0, 0)
	canceled.Reason = "Requested"

	partial := job(b, "logs", v1alpha1.PhaseCompleted, 1, 1)
	partial.Omitted = `not kept: 2 HardLink ("a", "b")`

	tests := map[string]struct {
		jobs    []jobs.Progress
		started time.Time

		completed   bool
		done, total int64
		err         []string
		description string
	}{
		"both run": {
			jobs: []jobs.Progress{job(a, "data", v1alpha1.PhaseInProgress, 1536, 4096), job(b, "logs", v1alpha1.PhaseAccepted, 0, 0)},
			done: 1536, total: 4096,
			description: "data on node n: InProgress, 1.5 KiB of 4.0 KiB; logs on node n: Accepted",
		},
		"one is done": {
			jobs: []jobs.Progress{job(a, "data", v1alpha1.PhaseCompleted, 10, 20), job(b, "logs", v1alpha1.PhaseInProgress, 7, 0)},
			done: 27, total: 27,
			description: "data on node n: Completed, 20 B; logs on node n: InProgress, 7 B",
		},
		"both are done": {
			jobs:      []jobs.Progress{job(a, "data", v1alpha1.PhaseCompleted, 20, 20), job(b, "logs", v1alpha1.PhaseCompleted, 0, 0)},
			completed: true, done: 20, total: 20,
			description: "data on node n: Completed, 20 B; logs on node n: Completed, 0 B",
		},
		"one has left something out": {
			jobs:      []jobs.Progress{job(a, "data", v1alpha1.PhaseCompleted, 20, 20), partial},
			completed: true, done: 21, total: 21,
			description: `data on node n: Completed, 20 B; logs on node n: Completed, 1 B, not kept: 2 HardLink ("a", "b")`,
		},
		"one has failed and the other runs": {
			jobs: []jobs.Progress{job(a, "data", v1alpha1.PhaseInProgress, 1, 2), failed},
			done: 6, total: 12,
			description: "data on node n: InProgress, 1 B of 2 B; logs on node n: Failed, 5 B of 10 B (StoreUnavailable)",
		},
		"one has failed and the other is done": {
			jobs:      []jobs.Progress{job(a, "data", v1alpha1.PhaseCompleted, 2, 2), failed},
			completed: true, done: 7, total: 12,
			err:         []string{"volume logs", b, "Failed", "StoreUnavailable", "put blob: timeout"},
			description: "data on node n: Completed, 2 B; logs on node n: Failed, 5 B of 10 B (StoreUnavailable)",
		},
		"one was cancelled": {
			jobs:      []jobs.Progress{job(a, "data", v1alpha1.PhaseCompleted, 2, 2), canceled},
			completed: true, done: 2, total: 2,
			err:         []string{"Canceled", "Requested"},
			description: "data on node n: Completed, 2 B; logs on node n: Canceled (Requested)",
		},
		"one isn't there yet": {
			jobs:    []jobs.Progress{job(a, "data", v1alpha1.PhaseCompleted, 2, 2)},
			started: now.Add(-time.Minute),
			done:    2, total: 2,
			description: "data on node n: Completed, 2 B; " + b + ": New",
		},
		"one is gone": {
			jobs:      []jobs.Progress{job(a, "data", v1alpha1.PhaseCompleted, 2, 2)},
			started:   now.Add(-3 * time.Minute),
			completed: true, done: 2, total: 2,
			err:         []string{"JobMissing", b},
			description: "data on node n: Completed, 2 B; " + b + ": Failed (JobMissing)",
		},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			found := map[string]jobs.Progress{}
			for _, j := range tt.jobs {
				found[j.Job] = j
			}

			p := operation.Progress(operation.Observed{ID: id, Jobs: found, Started: tt.started, Now: now})
			assert.Equal(t, tt.completed, p.Completed)
			assert.Equal(t, tt.done, p.NCompleted)
			assert.Equal(t, tt.total, p.NTotal)
			assert.Equal(t, tt.description, p.Description)
			assert.Equal(t, "B", p.OperationUnits)
			assert.Equal(t, now, p.Updated)
			assert.Equal(t, now.Add(-time.Minute), p.Started)

			if tt.err == nil {
				assert.Empty(t, p.Err)
			}

			for _, part := range tt.err {
				assert.Contains(t, p.Err, part)
			}
		})
	}
}

func TestWhatWasLeftOutIsWarnedOfOnce(t *testing.T) {
	a, b := name("vb-", "a"), name("vb-", "b")
	run := jobs.Progress{Job: a, Volume: "data", Phase: v1alpha1.PhaseInProgress}
	done := jobs.Progress{Job: a, Volume: "data", Phase: v1alpha1.PhaseCompleted, Omitted: "not kept: 1 Device"}
	whole := jobs.Progress{Job: b, Volume: "logs", Phase: v1alpha1.PhaseCompleted}

	var warnings []string

	warn := func(text string) { warnings = append(warnings, text) }
	observed := func(found ...jobs.Progress) operation.Observed {
		o := operation.Observed{ID: operation.ID{Kind: operation.Backup, Jobs: []string{a, b}}, Jobs: map[string]jobs.Progress{}}
		for _, j := range found {
			o.Jobs[j.Job] = j
		}

		return o
	}

	p := operation.NewPoll(clocktesting.NewFakeClock(time.Unix(0, 0)), nil)
	assert.False(t, p.Report(observed(run, whole), warn).Completed)
	assert.Empty(t, warnings)

	got := p.Report(observed(done, whole), warn)
	assert.True(t, got.Completed)
	assert.Empty(t, got.Err, "it is a warning, not a failure")
	assert.Equal(t, []string{"volume data: VolumeBackup " + a + " is Completed, not kept: 1 Device"}, warnings)

	p.Report(observed(done, whole), warn)
	assert.Len(t, warnings, 1)
}

func TestStarted(t *testing.T) {
	a := name("vb-", "a")
	id := operation.ID{Kind: operation.Backup, Jobs: []string{a}}
	owner := time.Unix(1000, 0)

	assert.Equal(t, owner, operation.Started(owner, id, nil))
	assert.Equal(t, time.Unix(2000, 0), operation.Started(owner, id, map[string]jobs.Progress{a: {Created: time.Unix(2000, 0)}}), "the backup runs longer than the operation")
	assert.Equal(t, owner, operation.Started(owner, id, map[string]jobs.Progress{"another": {Created: time.Unix(2000, 0)}}))
}

// script answers each call with its next step, the last one for ever.
type script struct {
	steps []map[string]jobs.Progress
	calls int
	err   error
}

func (s *script) list(context.Context, string) (map[string]jobs.Progress, error) {
	s.calls++

	if s.err != nil && s.calls == 1 {
		return nil, s.err
	}

	return s.steps[min(s.calls, len(s.steps))-1], nil
}

func state(phase v1alpha1.Phase, missing int64) map[string]jobs.Progress {
	a := name("vb-", "a")

	return map[string]jobs.Progress{a: {Job: a, Phase: phase, BytesTotal: missing}}
}

// advance moves the clock on as often as somebody waits for it, until the test ends.
func advance(t *testing.T, c *clocktesting.FakeClock) {
	t.Helper()

	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})

	go func() {
		defer close(stopped)

		for ctx.Err() == nil {
			if c.HasWaiters() {
				c.Step(operation.Pace)
			}

			runtime.Gosched()
		}
	}()

	t.Cleanup(func() { cancel(); <-stopped })
}

func TestOneListAnswersManyQuestions(t *testing.T) {
	c := clocktesting.NewFakeClock(time.Unix(0, 0))
	s := &script{steps: []map[string]jobs.Progress{state(v1alpha1.PhaseInProgress, 1)}}
	p := operation.NewPoll(c, s.list)

	for range 100 {
		_, err := p.Jobs(context.Background(), "o", operation.Fresh)
		require.NoError(t, err)
	}

	assert.Equal(t, 1, s.calls)

	_, err := p.Jobs(context.Background(), "another", operation.Fresh)
	require.NoError(t, err)
	assert.Equal(t, 2, s.calls, "another owner is another list")

	c.Step(operation.Fresh)

	_, err = p.Jobs(context.Background(), "o", operation.Fresh)
	require.NoError(t, err)
	assert.Equal(t, 3, s.calls)
}

func TestHold(t *testing.T) {
	id := operation.ID{Kind: operation.Backup, Jobs: []string{name("vb-", "a")}}
	run, done, far := state(v1alpha1.PhaseInProgress, 1), state(v1alpha1.PhaseCompleted, 0), state(v1alpha1.PhaseInProgress, 1<<40)

	tests := map[string]struct {
		script script
		last   map[string]jobs.Progress
		spent  func(d time.Duration) bool
	}{
		"a job that ends soon": {
			script: script{steps: []map[string]jobs.Progress{run, run, done}}, last: done,
			spent: func(d time.Duration) bool { return d > 0 && d < time.Second },
		},
		"a job that doesn't end": {
			script: script{steps: []map[string]jobs.Progress{run}}, last: run,
			spent: func(d time.Duration) bool { return d >= operation.HoldBudget && d < operation.HoldBudget+time.Second },
		},
		"a job that has much to do": {
			script: script{steps: []map[string]jobs.Progress{far}}, last: far,
			spent: func(d time.Duration) bool { return d == 0 },
		},
		"an API server that stumbles": {
			script: script{steps: []map[string]jobs.Progress{run, done}, err: errors.New("refused")}, last: done,
			spent: func(d time.Duration) bool { return d > 0 && d < time.Second },
		},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			c := clocktesting.NewFakeClock(time.Unix(0, 0))
			advance(t, c)

			p := operation.NewPoll(c, tt.script.list)
			began := c.Now()
			assert.Equal(t, tt.last, p.Hold(context.Background(), "o", id))
			assert.True(t, tt.spent(c.Since(began)), c.Since(began))
		})
	}
}

func TestTheBudgetIsOneForTheProcess(t *testing.T) {
	id := operation.ID{Kind: operation.Backup, Jobs: []string{name("vb-", "a")}}
	c := clocktesting.NewFakeClock(time.Unix(0, 0))
	advance(t, c)

	s := &script{steps: []map[string]jobs.Progress{state(v1alpha1.PhaseInProgress, 1)}}
	p := operation.NewPoll(c, s.list)
	began := c.Now()

	for range 50 {
		p.Hold(context.Background(), "o", id)
	}

	assert.Less(t, c.Since(began), operation.HoldBudget+5*time.Second)
}
