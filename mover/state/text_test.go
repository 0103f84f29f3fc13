package state_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestWhatIsWrittenIsBounded(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		reason, message string
		want            string
	}{
		"a message of a megabyte":              {reason: "Queued", message: strings.Repeat("ä", 1<<19), want: "Queued"},
		"a message that is no text":            {reason: "Queued", message: "a\xffb", want: "Queued"},
		"a reason that is a sentence":          {reason: "not a word", want: state.ReasonInternal},
		"a reason that begins with a digit":    {reason: "9lives", want: state.ReasonInternal},
		"a reason of two kilobytes":            {reason: strings.Repeat("x", 2048), want: state.ReasonInternal},
		"a reason of the engine's stays":       {reason: "StoreStalled", message: "m", want: "StoreStalled"},
		"a message with a dot cut in the rune": {reason: "X1", message: "x" + strings.Repeat("ä", 4096), want: "X1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var s v1alpha1.JobStatus

			state.Apply(&s, state.Decision{Phase: v1alpha1.PhaseFailed, Reason: c.reason, Message: c.message}, created)
			assert.Equal(t, c.want, s.Reason)
			assert.Equal(t, c.want, s.Conditions[0].Reason)
			assert.LessOrEqual(t, len(s.Message), state.MaxMessage)
			assert.LessOrEqual(t, len(s.Conditions[0].Message), state.MaxMessage)
			assert.True(t, utf8.ValidString(s.Message))
		})
	}
}

func TestAGatesMessageIsBounded(t *testing.T) {
	t.Parallel()

	long := &v1alpha1.JobStatus{Phase: v1alpha1.PhaseFailed, Reason: "X", Message: strings.Repeat("m", 1<<20)}
	d := state.NextGate([]state.GateJob{{"a", "vr-1", long}, {"b", "vr-2", long}}, 0, state.DefaultBounds())
	assert.Len(t, d.Message, state.MaxMessage)
	assert.LessOrEqual(t, len(state.Unwritable(errors.New(long.Message)).Message), state.MaxMessage)
}
