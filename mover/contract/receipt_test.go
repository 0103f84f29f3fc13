package contract_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
)

func receipt() contract.Receipt {
	return contract.Receipt{Version: contract.ReceiptVersion, Omissions: []contract.Omission{
		{Reason: "ExtendedAttributes", Count: 1, Examples: []string{`"dir/<acl>"`}},
		{Reason: "HardLink", Count: 4711, Examples: []string{`"a"`, `"b"`, `"c\nd"`}},
		{Reason: "Socket", Count: 2},
	}}
}

func TestAReceiptHasItsShape(t *testing.T) {
	text, err := receipt().Encode()
	require.NoError(t, err)
	golden(t, "receipt.v1.json", text)

	whole, err := contract.Receipt{}.Encode()
	require.NoError(t, err)
	golden(t, "receipt-whole.v1.json", whole)
}

func TestAReceiptOfTheGoldenFilesIsRead(t *testing.T) {
	for name, want := range map[string]contract.Receipt{
		"receipt.v1.json":       receipt(),
		"receipt-whole.v1.json": {Version: contract.ReceiptVersion},
	} {
		text, err := os.ReadFile("testdata/" + name)
		require.NoError(t, err)

		got, err := contract.DecodeReceipt(string(text))
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestAReceiptIsShort(t *testing.T) {
	var r contract.Receipt

	for i := range 20 {
		o := contract.Omission{Reason: "Reason" + string(rune('A'+i)), Count: 1 << 50}
		for range 10 {
			o.Examples = append(o.Examples, strings.Repeat("x", 200), strings.Repeat("y", 128))
		}

		r.Omissions = append(r.Omissions, o)
	}

	text, err := r.Encode()
	require.NoError(t, err)
	assert.Less(t, len(text), 12<<10)

	got, err := contract.DecodeReceipt(text)
	require.NoError(t, err)
	assert.Len(t, got.Omissions, 20)
	assert.Len(t, got.Omissions[0].Examples, 3)
}

func TestAReceiptThatLiesIsRefused(t *testing.T) {
	examples := strings.TrimSuffix(strings.Repeat(`"x",`, 11), ",")
	many := make([]string, 0, 65)

	for i := range 65 {
		many = append(many, fmt.Sprintf(`{"reason":"R%s","count":1}`, strings.Repeat("a", i)))
	}

	for name, test := range map[string]struct{ text, says string }{
		"nothing":             {"", "unexpected end"},
		"no document":         {"socket: 1", "invalid character"},
		"no version":          {`{"omissions":[]}`, "version 0"},
		"a later version":     {`{"version":2}`, "version 2 is not known"},
		"too long":            {`{"version":1` + strings.Repeat(" ", 64<<10) + `}`, "bytes, more than"},
		"no reason":           {`{"version":1,"omissions":[{"count":1}]}`, `omissions[0].reason is ""`},
		"a reason with lines": {`{"version":1,"omissions":[{"reason":"A\nB","count":1}]}`, "omissions[0].reason"},
		"a reason twice":      {`{"version":1,"omissions":[{"reason":"A","count":1},{"reason":"A","count":1}]}`, "omissions[1].reason"},
		"a count below one":   {`{"version":1,"omissions":[{"reason":"A","count":-5}]}`, "omissions[0].count is -5"},
		"a count too big":     {`{"version":1,"omissions":[{"reason":"A","count":9223372036854775807}]}`, "omissions[0].count"},
		"a count of words":    {`{"version":1,"omissions":[{"reason":"A","count":"1"}]}`, "cannot unmarshal"},
		"too many reasons":    {`{"version":1,"omissions":[` + strings.Join(many, ",") + `]}`, "65 omissions"},
		"too many examples":   {`{"version":1,"omissions":[{"reason":"A","count":99,"examples":[` + examples + `]}]}`, "11 examples"},
		"more than it counts": {`{"version":1,"omissions":[{"reason":"A","count":1,"examples":["a","b"]}]}`, "2 examples for a count of 1"},
		"an example of lines": {`{"version":1,"omissions":[{"reason":"A","count":1,"examples":["a\nlevel=error"]}]}`, "omissions[0].examples[0]"},
		"a long example":      {`{"version":1,"omissions":[{"reason":"A","count":1,"examples":["` + strings.Repeat("x", 513) + `"]}]}`, "omissions[0].examples[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := contract.DecodeReceipt(test.text)
			require.ErrorIs(t, err, contract.ErrReceipt)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, contract.TagOmissions)
			assert.Less(t, len(err.Error()), 500)
			assert.Empty(t, got)
		})
	}
}
