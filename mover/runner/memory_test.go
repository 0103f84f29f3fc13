package runner

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		assert.Equal(t, want, c.ceiling(running), "%d running", running)
	}

	assert.Zero(t, Config{Slots: 2}.ceiling(100), "no limit is no ceiling")
	assert.Equal(t, int(1200/128), newSlots(c.withDefaults()).most, "as many as have room at all")
	assert.Zero(t, newSlots(Config{}.withDefaults()).most)
}

func TestTogetherNoMoreThanThereIs(t *testing.T) {
	tests := map[string]struct {
		// frozen are the workers, in the order they began; goes is who is to go when each uses bytes.
		frozen []bool
		bytes  int64
		goes   int
	}{
		"nobody goes while there is room":                    {frozen: []bool{false, true, true}, bytes: 100, goes: -1},
		"the last one that nobody is frozen for goes":        {frozen: []bool{false, true, false, true}, bytes: 100, goes: 2},
		"of frozen ones, the one that began last goes":       {frozen: []bool{true, true, true, true}, bytes: 100, goes: 3},
		"an older one goes before any that is frozen":        {frozen: []bool{false, true, true, true}, bytes: 100, goes: 0},
		"one that uses all that there is goes, though alone": {frozen: []bool{true}, bytes: 301, goes: 0},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &pool{total: 300}

			var shares []*share
			for _, f := range test.frozen {
				shares = append(shares, p.join(f))
			}

			for _, s := range shares {
				p.take(s, test.bytes)
			}

			for i, s := range shares {
				together, goes := p.take(s, test.bytes)
				assert.Equal(t, int64(len(shares))*test.bytes, together)
				assert.Equal(t, i == test.goes, goes, "worker %d", i)
			}

			if test.goes < 0 {
				return
			}

			p.leave(shares[test.goes])

			for i, s := range shares {
				if _, goes := p.take(s, test.bytes); i != test.goes {
					assert.False(t, goes, "there is room now")
				}
			}
		})
	}

	_, goes := (&pool{}).take(&share{}, 1<<60)
	assert.False(t, goes, "no limit")
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

			assert.Equal(t, test.last, forwardLog(strings.NewReader(test.log), log))

			for _, want := range test.logged {
				assert.Contains(t, lines.String(), want)
			}
		})
	}

	assert.Equal(t, "x", forwardLog(strings.NewReader("x"), logr.Discard()))
}
