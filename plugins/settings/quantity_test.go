package settings

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAQuantityIsOneThatCanBeReckonedWith(t *testing.T) {
	t.Parallel()

	for _, text := range []string{"100m", "1.5Gi", "1E", "12e6", "9223372036854775807", "1e18"} {
		_, err := Quantity(text)
		require.NoError(t, err, text)
	}

	for text, says := range map[string]string{
		"1e99999999": "beyond any size", "1E-99999999": "beyond any size", "1e+100": "beyond any size",
		strings.Repeat("9", 100): "beyond any size", "much": "read a quantity", "": "read a quantity",
	} {
		_, err := Quantity(text)
		assert.ErrorContains(t, err, says, text)
	}
}
