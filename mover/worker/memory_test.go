package worker

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTheRuntimesLimitFollowsWhatIsAlive(t *testing.T) {
	const mib = 1 << 20

	tests := map[string]struct{ alive, want int64 }{
		"little is alive":                   {alive: 10 * mib, want: 500 * mib},
		"as much as fits":                   {alive: 370 * mib, want: 500 * mib},
		"more than leaves room to work in":  {alive: 480 * mib, want: 632 * mib},
		"more than anybody is given at all": {alive: 1400 * mib, want: 1500 * mib},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, runtimeLimit(test.alive, 500*mib, 1500*mib))
		})
	}
}
