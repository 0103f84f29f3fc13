package kopiaengine

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestDataIsWhatIsNotZeros(t *testing.T) {
	t.Parallel()

	const block = 8

	for name, test := range map[string]struct {
		bytes string // '.' is a zero
		at    int64
		want  [][2]int
	}{
		"nothing":                     {"", 0, nil},
		"zeros":                       {"........", 0, nil},
		"zeros of half a block":       {"...", 0, nil},
		"data":                        {"xxxxxxxxxxxxxxxx", 0, [][2]int{{0, 16}}},
		"a byte in a block":           {"........x...............", 0, [][2]int{{8, 16}}},
		"two runs":                    {"x.......................x...", 0, [][2]int{{0, 8}, {24, 28}}},
		"blocks are those of a file":  {"...x..........", 5, [][2]int{{3, 11}}},
		"the beginning is cut":        {"x..........", 5, [][2]int{{0, 3}}},
		"data up to the end":          {"........xxx", 0, [][2]int{{8, 11}}},
		"zeros within a block remain": {"x......x", 0, [][2]int{{0, 8}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			p := []byte(test.bytes)
			for i := range p {
				if p[i] == '.' {
					p[i] = 0
				}
			}

			var got [][2]int
			for from, to := range data(p, test.at, block) {
				got = append(got, [2]int{from, to})
			}

			assert.Equal(t, test.want, got)
		})
	}
}

func TestBlocksAreOfASizeThatCanBe(t *testing.T) {
	t.Parallel()

	for told, want := range map[int64]int64{0: 4096, -1: 4096, 1: 4096, 512: 512, 1024: 1024, 3000: 4096, 4096: 4096, 1 << 20: 4096} {
		assert.Equal(t, want, blockOf(told), told)
	}
}
