package app

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
)

// It sets what the whole process has, so that it must not run beside others.
//
//nolint:paralleltest // see above
func TestTheProcessKeepsWithinItsShare(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })

	for _, c := range []struct {
		name                           string
		before, limit, share, expected int64
	}{
		{"an eighth is kept back", math.MaxInt64, 2 << 30, 256 << 20, 224 << 20},
		{"no limit, no bound", math.MaxInt64, 0, 256 << 20, math.MaxInt64},
		{"no share, no bound", math.MaxInt64, 2 << 30, 0, math.MaxInt64},
		{"GOMEMLIMIT was set", 1 << 30, 2 << 30, 256 << 20, 1 << 30},
	} {
		debug.SetMemoryLimit(c.before)
		boundMemory(c.limit, c.share)
		assert.Equal(t, c.expected, debug.SetMemoryLimit(-1), c.name)
	}

	assert.Equal(t, int64(128<<20), brokerMemory(256<<20))
	assert.Equal(t, int64(32<<20), brokerMemory(0))
}
