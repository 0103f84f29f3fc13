package engine_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
)

func TestOmissionsOfSeveralAreOneList(t *testing.T) {
	first := []engine.Omission{{Reason: "Owner", Count: 3, Examples: []string{"a", "b", "c"}}, {Reason: "HardLink", Count: 1}}
	second := []engine.Omission{{Reason: "Owner", Count: 20, Examples: []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}}}

	assert.Equal(t, []engine.Omission{
		{Reason: "HardLink", Count: 1},
		{Reason: "Owner", Count: 23, Examples: []string{"a", "b", "c", "1", "2", "3", "4", "5", "6", "7"}},
	}, engine.MergeOmissions(first, nil, second))
	assert.Equal(t, []string{"a", "b", "c"}, first[0].Examples)
	assert.Empty(t, engine.MergeOmissions(nil, nil))
}

func TestNobodyIsWarnedOfWhatNobodyMisses(t *testing.T) {
	assert.True(t, engine.OmittedSocket.Harmless())
	assert.True(t, engine.OmittedVanished.Harmless())
	assert.False(t, engine.OmittedXattr.Harmless())
	assert.False(t, engine.OmissionReason("OfALaterRelease").Harmless())
}

func TestEveryReasonOfAnOmissionIsKnown(t *testing.T) {
	source, err := os.ReadFile("omissions.go")
	require.NoError(t, err)

	found := regexp.MustCompile(`OmissionReason = "(\w+)"`).FindAllSubmatch(source, -1)
	require.NotEmpty(t, found)

	for _, f := range found {
		assert.True(t, engine.OmissionReason(f[1]).Known(), "%s: its metric would be that of a reason that nobody knows", f[1])
	}

	assert.False(t, engine.OmissionReason("OfALaterRelease").Known())
}
