package contract_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestPlace(t *testing.T) {
	t.Parallel()

	type location struct {
		provider, bucket, prefix string
		config                   map[string]string
	}

	place := func(l location) string {
		p, err := contract.Place(l.provider, l.bucket, l.prefix, l.config)
		require.NoError(t, err)

		return p
	}

	one := location{"aws", "b", "p", map[string]string{"region": "r", "s3Url": "u"}}
	assert.Equal(t, "3d3b2c8c9ac62272", place(one), "it must be the same in every release")

	for name, other := range map[string]location{
		"provider":             {"gcp", "b", "p", one.config},
		"bucket":               {"aws", "c", "p", one.config},
		"prefix":               {"aws", "b", "", one.config},
		"config":               {"aws", "b", "p", map[string]string{"region": "r", "s3Url": "v"}},
		"less config":          {"aws", "b", "p", map[string]string{"region": "r"}},
		"the same, cut apart":  {"aws", "bp", "", one.config},
		"a key taken for text": {"aws", "b", "p", map[string]string{"regionr": "s3Urlu"}},
	} {
		assert.NotEqual(t, place(one), place(other), name)
	}
}
