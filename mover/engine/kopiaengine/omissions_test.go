package kopiaengine

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

func TestAQuotedPathIsBoundedAndKeepsItsEnd(t *testing.T) {
	for name, test := range map[string]struct{ path, want string }{
		"a short one stays":       {"a/b", `"a/b"`},
		"nothing stays":           {"", `""`},
		"one that just fits":      {strings.Repeat("x", 254), `"` + strings.Repeat("x", 254) + `"`},
		"one byte too much":       {"y" + strings.Repeat("x", 254), `"…` + strings.Repeat("x", 251) + `"`},
		"deep folders":            {strings.Repeat("folder/", 100_000) + "end", `"…` + strings.Repeat("folder/", 100_000)[700_000-248:] + `end"`},
		"what is quoted fourfold": {strings.Repeat("\xff", 1000), `"…` + strings.Repeat(`\xff`, 62) + `"`},
		"letters of many bytes":   {strings.Repeat("é", 1000), `"…` + strings.Repeat("é", 125) + `"`},
	} {
		t.Run(name, func(t *testing.T) {
			got := quote(test.path)
			assert.Equal(t, test.want, got)
			assert.LessOrEqual(t, len(got), maxPath)

			_, err := strconv.Unquote(got)
			require.NoError(t, err)
		})
	}
}

func TestExamplesOfOmissionsAreBounded(t *testing.T) {
	var o omissions

	for i := range 20 {
		o.add(engine.OmittedFIFO, strings.Repeat(strings.Repeat("\x01", 255)+"/", 150)+strconv.Itoa(i))
	}

	list := o.list()
	require.Len(t, list, 1)
	assert.EqualValues(t, 20, list[0].Count)
	require.Len(t, list[0].Examples, engine.MaxExamples)

	for i, example := range list[0].Examples {
		assert.LessOrEqual(t, len(example), 256)
		assert.True(t, strings.HasSuffix(example, fmt.Sprintf("/%d\"", i)), example)
	}
}

func TestALongErrorIsCutAndStaysWhatItWas(t *testing.T) {
	src := newSource(nil, nil, nil, func() {})
	cause := errors.New(strings.Repeat("é", 4000))

	for range engine.MaxExamples {
		_ = src.fail(strings.Repeat("folder/", 1000), beneath.KindRegular, cause)
	}

	err := shorten(fmt.Errorf("back up: %w", src.err()))
	assert.LessOrEqual(t, len(err.Error()), 4<<10)
	assert.True(t, strings.HasPrefix(err.Error(), "back up: "))
	assert.True(t, strings.HasSuffix(err.Error(), "é…"))
	require.ErrorIs(t, err, cause)
	assert.Equal(t, engine.CodeSourceUnreadable, engine.CodeOf(err))

	short := errors.New("short")
	assert.Equal(t, short, shorten(short))
	assert.NoError(t, shorten(nil))
}
