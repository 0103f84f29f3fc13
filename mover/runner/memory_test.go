package runner

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestCeiling(t *testing.T) {
	const mib = 1 << 20

	tests := map[string]struct {
		limit, share int64
		slots        int
		ceiling      int64
		ok           bool
	}{
		"no limit is no ceiling":                  {limit: 0, share: 128 * mib, slots: 3, ceiling: 0, ok: true},
		"what the daemon leaves is divided":       {limit: 2048 * mib, share: 128 * mib, slots: 3, ceiling: 640 * mib, ok: true},
		"one slot has all":                        {limit: 1024 * mib, share: 256 * mib, slots: 1, ceiling: 768 * mib, ok: true},
		"too many slots are given the least":      {limit: 512 * mib, share: 128 * mib, slots: 8, ceiling: 128 * mib, ok: false},
		"a limit below the daemon's share":        {limit: 100 * mib, share: 128 * mib, slots: 1, ceiling: 128 * mib, ok: false},
		"no slots are taken for one":              {limit: 1024 * mib, share: 0, slots: 0, ceiling: 1024 * mib, ok: true},
		"exactly the least is enough":             {limit: 384 * mib, share: 128 * mib, slots: 2, ceiling: 128 * mib, ok: true},
		"a negative limit is no limit, therefore": {limit: -1, share: 128 * mib, slots: 1, ceiling: 0, ok: true},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ceiling, ok := Ceiling(test.limit, test.share, test.slots)

			assert.Equal(t, test.ceiling, ceiling)
			assert.Equal(t, test.ok, ok)
			assert.LessOrEqual(t, softLimit(ceiling), ceiling)

			if ok && ceiling > 0 {
				assert.LessOrEqual(t, ceiling*int64(test.slots)+test.share, test.limit)
			}
		})
	}
}

func TestWhatRunsBeyondTheSlotsHasLess(t *testing.T) {
	const mib = 1 << 20

	c := Config{Slots: 2, Reserved: 1, MemoryCeiling: 400 * mib}

	for running, want := range map[int]int64{1: 400 * mib, 3: 400 * mib, 4: 300 * mib, 6: 200 * mib, 100: minimumCeiling} {
		assert.Equal(t, want, c.ceiling(&slot{count: running}), "%d running", running)
	}

	assert.Equal(t, int64(800*mib), c.ceiling(&slot{want: want{alone: true}, count: 1}), "alone it has the ceilings of all slots")
	assert.Equal(t, int64(400*mib), c.ceiling(&slot{want: want{alone: true, frozen: true}, count: 3}))
	assert.Zero(t, Config{Slots: 2}.ceiling(&slot{count: 100}), "no limit is no ceiling")
	assert.Equal(t, int(1200/128), newSlots(c.withDefaults()).most, "as many as have room at all")
	assert.Zero(t, newSlots(Config{}.withDefaults()).most)
}

func TestAsManyFilesAtATimeAsProcessorsAndMemoryAllow(t *testing.T) {
	const mib = 1 << 20

	tests := map[string]struct {
		processors int
		ceiling    int64
		want       int
	}{
		"twice as many as processors":             {processors: 2, ceiling: 597 * mib, want: 4},
		"what fits into half of the memory":       {processors: 64, ceiling: 597 * mib, want: 12},
		"the smallest ceiling":                    {processors: 64, ceiling: minimumCeiling, want: 2},
		"never none":                              {processors: 64, ceiling: 1 * mib, want: 1},
		"without a limit the processors alone":    {processors: 4, want: 8},
		"a large machine without a limit, though": {processors: 256, want: maxParallel},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, Config{Processors: test.processors}.parallel(test.ceiling))
		})
	}
}

// worker is one of a pool, in bytes.
type worker struct {
	frozen        bool
	ceiling, used int64
}

func TestTogetherNoMoreThanThereIs(t *testing.T) {
	tests := map[string]struct {
		// workers in the order they began.
		workers []worker
		// goes is who is to go, and how; -1 is nobody.
		goes int
		how  pressure
	}{
		"nobody goes while there is room": {
			workers: []worker{{used: 100, ceiling: 100}, {used: 80, ceiling: 100}, {used: 70, ceiling: 100}}, goes: -1,
		},
		"one may use what others leave": {workers: []worker{{used: 230, ceiling: 100}, {used: 20, ceiling: 100}}, goes: -1},
		"who uses more than its ceiling is told in time": {
			workers: []worker{{used: 200, ceiling: 100}, {used: 90, ceiling: 100}}, goes: 0, how: tight,
		},
		"and ended at once when there is no more": {
			workers: []worker{{used: 220, ceiling: 100}, {used: 90, ceiling: 100}}, goes: 0, how: over,
		},
		"not who keeps to its ceiling, though it began last": {
			workers: []worker{{used: 220, ceiling: 100}, {used: 90, ceiling: 100, frozen: true}, {used: 90, ceiling: 100}}, goes: 0, how: over,
		},
		"of two, who went further": {
			workers: []worker{{used: 140, ceiling: 100}, {used: 150, ceiling: 100}, {used: 11, ceiling: 100}}, goes: 1, how: over,
		},
		"and one that nobody is frozen for before one that is": {
			workers: []worker{{used: 120, ceiling: 100}, {used: 190, ceiling: 100, frozen: true}}, goes: 0, how: over,
		},
		"a frozen one that went too far before one that did not": {
			workers: []worker{{used: 80, ceiling: 100}, {used: 230, ceiling: 100, frozen: true}}, goes: 1, how: over,
		},
		"within their ceilings, the last one that nobody is frozen for": {
			workers: []worker{{used: 80, ceiling: 100}, {used: 80, ceiling: 100, frozen: true}, {used: 80, ceiling: 100}, {used: 80, ceiling: 100, frozen: true}},
			goes:    2, how: over,
		},
		"within their ceilings nobody is told before it must be": {
			workers: []worker{{used: 80, ceiling: 100}, {used: 80, ceiling: 100}, {used: 80, ceiling: 100}, {used: 50, ceiling: 100}}, goes: -1,
		},
		"of frozen ones, the one that began last": {
			workers: []worker{{used: 80, ceiling: 100, frozen: true}, {used: 80, ceiling: 100, frozen: true}, {used: 80, ceiling: 100, frozen: true}, {used: 80, ceiling: 100, frozen: true}},
			goes:    3, how: over,
		},
		"one alone that uses all that there is": {workers: []worker{{used: 301, ceiling: 100, frozen: true}}, goes: 0, how: over},
		"one alone that nearly does":            {workers: []worker{{used: 290, ceiling: 300}}, goes: 0, how: tight},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &pool{total: 300}

			var (
				shares []*share
				all    int64
			)

			for _, w := range test.workers {
				s := p.join(w.frozen, w.ceiling)
				s.bytes = w.used
				shares, all = append(shares, s), all+w.used
			}

			for i, s := range shares {
				want := fits
				if i == test.goes {
					want = test.how
				}

				together, how := p.take(s, s.bytes)
				assert.Equal(t, all, together)
				assert.Equal(t, want, how, "worker %d", i)
			}

			if test.goes < 0 {
				return
			}

			p.leave(shares[test.goes])

			for i, s := range shares {
				if _, how := p.take(s, s.bytes); i != test.goes {
					assert.Equal(t, fits, how, "there is room now")
				}
			}
		})
	}

	_, how := (&pool{}).take(&share{}, 1<<60)
	assert.Equal(t, fits, how, "no limit")
}

func TestMemoryThatIsNotGivenBackCountsAsUsed(t *testing.T) {
	p := &pool{total: 300}
	gone, there := p.join(false, 100), p.join(false, 100)

	p.take(gone, 150)
	p.abandon(gone)

	together, how := p.take(there, 100)
	assert.Equal(t, int64(250), together)
	assert.Equal(t, fits, how)

	_, how = p.take(there, 160)
	assert.Equal(t, over, how, "who is there goes, although another one has gone further")

	p.leave(gone)

	_, how = p.take(there, 160)
	assert.Equal(t, fits, how)
}

func TestParseMemory(t *testing.T) {
	tests := map[string]struct {
		status string
		bytes  int64
		err    string
	}{
		"anonymous and shared memory, not files": {
			status: "Name:\tmover\nVmRSS:\t   90000 kB\nRssAnon:\t   20480 kB\nRssFile:\t   69496 kB\nRssShmem:\t      24 kB\n",
			bytes:  (20480 + 24) << 10,
		},
		"a process that has ended holds nothing": {status: "Name:\tmover\nState:\tZ (zombie)\n"},
		"nonsense is an error":                   {status: "RssAnon:\tmuch kB\n", err: `RssAnon: strconv.ParseInt`},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseMemory([]byte(test.status))
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}

			require.NoError(t, err)
			assert.Equal(t, test.bytes, got)
		})
	}
}

func TestForwardLog(t *testing.T) {
	tests := map[string]struct {
		log    string
		last   string
		logged []string
	}{
		"JSON lines keep their fields": {
			log:    `{"time":"x","level":"INFO","msg":"hello","n":1}` + "\n",
			last:   `{"time":"x","level":"INFO","msg":"hello","n":1}`,
			logged: []string{`"msg"="hello"`, `"n"=1`},
		},
		"a panic says more than the stack after it": {
			log:    "starting\npanic: at its end\n\ngoroutine 1 [running]:\nmain.main()\n",
			last:   "panic: at its end",
			logged: []string{`"text"="starting"`, `"text"="main.main()"`},
		},
		"a last line needs no end": {log: "one\ntwo", last: "two", logged: []string{`"text"="two"`}},
		"a line without end is cut off": {
			log:  strings.Repeat("x", 3*maxLogLine) + "\nnext\n",
			last: "next", logged: []string{`"text"="next"`},
		},
		"nothing was said": {log: "\n\n"},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var lines bytes.Buffer

			log := funcr.New(func(_, args string) {
				assert.Less(t, len(args), 2*maxLogLine)
				lines.WriteString(args + "\n")
			}, funcr.Options{})

			assert.Equal(t, test.last, forwardLog(strings.NewReader(test.log), log, clock.RealClock{}))

			for _, want := range test.logged {
				assert.Contains(t, lines.String(), want)
			}
		})
	}

	assert.Equal(t, "x", forwardLog(strings.NewReader("x"), logr.Discard(), clock.RealClock{}))
}

func TestAFloodOfLogIsNotPassedOn(t *testing.T) {
	for name, line := range map[string]string{"of lines": "x\n", "of bytes": strings.Repeat("x", maxLogLine-1) + "\n"} {
		t.Run(name, func(t *testing.T) {
			var (
				lines, size int
				last        string
			)

			log := funcr.New(func(_, args string) {
				lines++
				size += len(args)
				last = args
			}, funcr.Options{})

			still := clocktesting.NewFakePassiveClock(time.Now())
			flood := strings.Repeat(line, 20<<20/len(line))

			assert.Equal(t, "fatal error: it has burst", forwardLog(strings.NewReader(flood+"fatal error: it has burst\n"), log, still), "how it died is known all the same")
			assert.LessOrEqual(t, lines, logLinesAtOnce+1)
			assert.Less(t, size, 5<<20)
			assert.Contains(t, last, "more than is passed on")
		})
	}
}
