package runner

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

func TestACodeThatNobodyKnowsIsAFaultOfOurs(t *testing.T) {
	t.Parallel()

	s := &supervision{task: Task{Request: protocol.Request{Verb: protocol.VerbBackup}}}

	for name, c := range map[string]struct{ code, want engine.Code }{
		"a code of the engine":   {engine.CodeTargetFull, engine.CodeTargetFull},
		"a code of its own":      {"Made up, with spaces", engine.CodeInternal},
		"no code, but a failure": {"", engine.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := s.judge(t.Context(), protocol.Result{Error: &protocol.Failure{Code: c.code, Message: "why"}})
			assert.Equal(t, c.want, engine.CodeOf(err))
			assert.ErrorContains(t, err, "why")
		})
	}
}
