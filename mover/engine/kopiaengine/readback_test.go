package kopiaengine

import (
	"fmt"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/snapshot"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestAShareGrowsWithTheTimeSinceTheLastOne(t *testing.T) {
	const gib = 1 << 30

	for name, test := range map[string]struct {
		total int64
		since time.Duration
		want  int64
	}{
		"little at least":         {total: 100, since: time.Hour, want: leastShare},
		"a day's of a month's":    {total: 3 * gib, since: 24 * time.Hour, want: 3 * gib / 30},
		"an hour's is the least":  {total: 3 * gib, since: time.Hour, want: leastShare},
		"all of it, at most":      {total: gib / 2, since: 60 * 24 * time.Hour, want: gib / 2},
		"never more than one may": {total: 1000 * gib, since: 24 * time.Hour, want: mostShare},
		"a clock that went back":  {total: 3 * gib, since: -time.Hour, want: leastShare},
	} {
		t.Run(name, func(t *testing.T) {
			assert.InDelta(t, test.want, shareOf(test.total, test.since).bytes, 1)
		})
	}
}

func TestWhatIsReadBackGoesRound(t *testing.T) {
	sizes := map[blob.ID]int64{"pa": 10, "pb": 10, "pc": 10, "pd": 10, "pe": 100}

	for name, test := range map[string]struct {
		share share
		last  blob.ID
		want  []blob.ID
	}{
		"from the beginning":        {share{20, 9}, "", []blob.ID{"pa", "pb"}},
		"after the last one":        {share{20, 9}, "pb", []blob.ID{"pc", "pd"}},
		"after one that is gone":    {share{20, 9}, "pbb", []blob.ID{"pc", "pd"}},
		"one at least":              {share{20, 9}, "pd", []blob.ID{"pe"}},
		"on to the beginning":       {share{110, 9}, "pd", []blob.ID{"pe", "pa"}},
		"each once":                 {share{1000, 9}, "pb", []blob.ID{"pc", "pd", "pe", "pa", "pb"}},
		"no more blobs than are to": {share{1000, 2}, "pb", []blob.ID{"pc", "pd"}},
		"after what is no name":     {share{20, 9}, "~", []blob.ID{"pa", "pb"}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, test.share.take(sizes, test.last)) })
	}

	assert.Empty(t, share{20, 9}.take(nil, "pa"))
}

func TestAllIsReadBackInOneRound(t *testing.T) {
	sizes, seen := map[blob.ID]int64{}, map[blob.ID]int{}
	for n := range 100 {
		sizes[blob.ID(fmt.Sprintf("p%02d-s", n))] = 10
	}

	r := rotaOf(nil, "a job")

	for range 25 {
		taken := share{40, 9}.take(sizes, r["p"])
		r["p"] = taken[len(taken)-1]

		for _, id := range taken {
			seen[id]++
		}

		// From one backup to the next it is kept in a tag.
		r = rotaOf(&snapshot.Manifest{Tags: map[string]string{tagPrefix + contract.TagReadBack: r.String()}}, "another")
	}

	require.Len(t, seen, len(sizes))

	for id, n := range seen {
		assert.Equal(t, 1, n, id)
	}
}

func TestATagThatLiesIsAPlaceToBegin(t *testing.T) {
	for _, tag := range []string{"", ",,,", "~", "p,q,x", "💥,p", "pzzz"} {
		r := rotaOf(&snapshot.Manifest{Tags: map[string]string{tagPrefix + contract.TagReadBack: tag}}, "job")

		assert.NotEmpty(t, r["p"], tag)
		assert.Len(t, share{20, 9}.take(map[blob.ID]int64{"pa": 1, "pb": 2}, r["p"]), 2, tag)
	}

	assert.NotEqual(t, rotaOf(nil, "a"), rotaOf(nil, "b"), "each begins elsewhere")
}
