package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRead(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		stream string
		want   tally
		shown  string
	}{
		"a passed test counts": {
			stream: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"A"}`,
			want: tally{passed: 1},
		},
		"a test with subtests counts as its subtests": {
			stream: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A"}`,
			want: tally{passed: 1},
		},
		"a long test shows that it has ended": {
			stream: `{"Action":"pass","Package":"p","Test":"A","Elapsed":12.3}`,
			want:   tally{passed: 1},
			shown:  "pass A (12 s)",
		},
		"a failed test shows its output": {
			stream: `{"Action":"output","Package":"p","Test":"A","Output":"boom\n"}
{"Action":"fail","Package":"p","Test":"A"}`,
			want:  tally{failed: 1},
			shown: "boom",
		},
		"a skipped test shows why": {
			stream: `{"Action":"output","Package":"p","Test":"A","Output":"needs root\n"}
{"Action":"skip","Package":"p","Test":"A"}`,
			want:  tally{skipped: 1},
			shown: "needs root",
		},
		"a package that fails without a test counts": {
			stream: `{"Action":"fail","Package":"p"}`,
			want:   tally{failed: 1},
			shown:  "FAIL p",
		},
		"a line that is no event is passed on": {
			stream: "panic: no\n",
			shown:  "panic: no",
		},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var shown bytes.Buffer

			assert.Equal(t, test.want, read(strings.NewReader(test.stream), &shown))
			assert.Contains(t, shown.String(), test.shown)
		})
	}
}

func TestTheClosingLineIsPlain(t *testing.T) {
	t.Parallel()

	assert.Equal(t, "3 passed, 0 failed", tally{passed: 3}.String())
	assert.Equal(t, "3 passed, 1 failed, 2 skipped", tally{passed: 3, failed: 1, skipped: 2}.String())
}
