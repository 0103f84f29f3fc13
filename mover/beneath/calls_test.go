package beneath

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCallsThatDoNotComeBackAreTold(t *testing.T) {
	var c calls

	assert.Zero(t, c.tick(), "there is none")

	first := c.begin()
	second := c.begin()
	assert.Equal(t, 1, c.tick())
	assert.Equal(t, 2, c.tick())

	first.Add(-1)
	assert.Equal(t, 3, c.tick(), "the other one goes on")

	third := c.begin()
	second.Add(-1)
	assert.Equal(t, 1, c.tick())

	third.Add(-1)
	assert.Zero(t, c.tick())

	stuck := c.begin()
	for range rounds - 1 {
		assert.Positive(t, c.tick(), "it stays told")
	}

	stuck.Add(-1)
	assert.Zero(t, c.tick())

	failure := errors.New("failed")
	assert.Equal(t, failure, noted(&c, func() error {
		assert.Equal(t, 1, c.tick())
		return failure
	}))
	assert.Zero(t, c.tick(), "what has failed has come back")
}
