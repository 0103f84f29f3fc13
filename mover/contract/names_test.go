package contract_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestNamesAreKeptAsTheyAreWhereJSONCanHoldThem(t *testing.T) {
	for _, name := range []string{"", "a", "ä", "日本", "🚢", "\ufffd", "new\nline", "\x01", "\U0010f000", "\U0010ff7f"} {
		assert.Equal(t, name, contract.EncodeName(name))
	}
}

func TestNamesThatJSONCannotHoldAreKeptByteByByte(t *testing.T) {
	for raw, kept := range map[string]string{
		"\xff":       "\U0010ffff",
		"a\x80b":     "a\U0010ff80b",
		"\xc3":       "\U0010ffc3",
		"\U0010ffff": "\U0010fff4\U0010ff8f\U0010ffbf\U0010ffbf",
		"\xff\xfe/x": "\U0010ffff\U0010fffe/x",
	} {
		assert.Equal(t, kept, contract.EncodeName(raw), "%q", raw)
		assert.Equal(t, raw, contract.DecodeName(kept), "%q", kept)
	}
}

// seeds are names at the edges of UTF-8 and of the range that escapes use.
func seeds(f *testing.F) {
	f.Helper()

	for _, s := range []string{"", "a", "ä", "\xff", "\xc3\x28", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\U0010ff7f", "\U0010ff80", "\U0010ffff", "\U0010ffc3\U0010ffa4", "a\xffb\U0010ff80"} {
		f.Add(s)
	}
}

func FuzzAnyNameSurvivesJSON(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw string) {
		kept := contract.EncodeName(raw)
		require.True(t, utf8.ValidString(kept))

		b, err := json.Marshal(kept)
		require.NoError(t, err)

		var read string

		require.NoError(t, json.Unmarshal(b, &read))
		require.Equal(t, raw, contract.DecodeName(read))
	})
}

func FuzzNoTwoNamesAreKeptAsOne(f *testing.F) {
	f.Add("\xc3\xa4", "\U0010ffc3\U0010ffa4")
	f.Add("\xff", "\U0010ffff")
	f.Add("a", "b")
	f.Fuzz(func(t *testing.T, a, b string) {
		if a != b {
			require.NotEqual(t, contract.EncodeName(a), contract.EncodeName(b))
		}
	})
}

func FuzzDecodingNeverFailsOnWhatNobodyWrote(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, kept string) {
		raw := contract.DecodeName(kept)
		require.Equal(t, raw, contract.DecodeName(contract.EncodeName(raw)))
	})
}
