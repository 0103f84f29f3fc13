package credentials_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/credentials"
)

// goldenKey is bytes 0x80 to 0x9f.
const goldenKey = "gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8="

// The values below were computed by another implementation of RFC 5869. They must never change:
// repositories could not be opened any more.
func TestWhatIsDerivedFromAKeyNeverChanges(t *testing.T) {
	t.Parallel()

	key, err := credentials.ParseMasterKey([]byte(goldenKey + "\n"))
	require.NoError(t, err)

	fingerprint, err := key.Fingerprint()
	require.NoError(t, err)
	require.Equal(t, "48db8a4edf147f435f7ced6d2112ca88", fingerprint)

	password, err := key.RepositoryPassword("abcdefghijklmnopqrstuvwxye")
	require.NoError(t, err)
	require.Equal(t, "6b7daeeb9753d05bd2332de71eded9b2f36f06651a92c8ee87867f06ee13cae2", password)

	require.Equal(t, goldenKey, string(key.Encode()))
}

func TestAMasterKeyIsRefused(t *testing.T) {
	t.Parallel()

	for name, encoded := range map[string]string{
		"when it is empty":                         "",
		"when it is not base64":                    "static-passw0rd",
		"when it is the well-known one, encoded":   base64.StdEncoding.EncodeToString([]byte("static-passw0rd")),
		"when it is short":                         base64.StdEncoding.EncodeToString(make([]byte, 16)),
		"when it is long":                          base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1, 200}, 32)),
		"when it is all zeros":                     base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"when it repeats a few bytes":              base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x81, 2, 3, 4}, 8)),
		"when it is text of the right length":      base64.StdEncoding.EncodeToString([]byte("The quick brown fox jumps over12")),
		"when it has something after the padding":  goldenKey + "AA==",
		"when the last characters are not minimal": strings.Replace(goldenKey, "np8=", "np9=", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := credentials.ParseMasterKey([]byte(encoded))
			require.ErrorIs(t, err, credentials.ErrWeakKey)

			if encoded != "" {
				require.NotContains(t, err.Error(), encoded)
			}
		})
	}
}

func TestAKeyThatWasMadeIsReadBack(t *testing.T) {
	t.Parallel()

	made, err := credentials.NewMasterKey(rand.Reader)
	require.NoError(t, err)

	read, err := credentials.ParseMasterKey(made.Encode())
	require.NoError(t, err)
	require.Equal(t, made, read)

	shown := fmt.Sprintf("%v %+v %#v %s", made, made, made, made)
	require.NotContains(t, shown, string(made.Encode()))
	require.Equal(t, strings.Repeat("(master key) ", 4), shown+" ")
}

func TestAKeyIsNotMadeOfABrokenSourceOfRandomness(t *testing.T) {
	t.Parallel()

	_, err := credentials.NewMasterKey(bytes.NewReader(make([]byte, 32)))
	require.ErrorIs(t, err, credentials.ErrWeakKey)

	_, err = credentials.NewMasterKey(strings.NewReader("short"))
	require.Error(t, err)

	var none credentials.MasterKey

	_, err = none.Fingerprint()
	require.ErrorIs(t, err, credentials.ErrWeakKey)

	_, err = none.RepositoryPassword("abcdefghijklmnopqrstuvwxye")
	require.ErrorIs(t, err, credentials.ErrWeakKey)
}

func TestRepositoryIDs(t *testing.T) {
	t.Parallel()

	id, err := credentials.NewRepositoryID(bytes.NewReader(bytes.Repeat([]byte{0xff}, 16)))
	require.NoError(t, err)
	require.Equal(t, "7777777777777777777777777"+"4", id)
	require.NoError(t, credentials.CheckRepositoryID(id))

	_, err = credentials.NewRepositoryID(strings.NewReader("short"))
	require.Error(t, err)

	for _, bad := range []string{"", "..", "ABCDEFGHIJKLMNOPQRSTUVWXYE", strings.Repeat("7", 26), "abcdefghijklmnopqrstuvwx/e", strings.Repeat("a", 52)} {
		require.Error(t, credentials.CheckRepositoryID(bad), bad)
	}
}

func TestRepositoriesHavePasswordsOfTheirOwn(t *testing.T) {
	t.Parallel()

	key, err := credentials.ParseMasterKey([]byte(goldenKey))
	require.NoError(t, err)

	one, err := key.RepositoryPassword("abcdefghijklmnopqrstuvwxye")
	require.NoError(t, err)

	two, err := key.RepositoryPassword("abcdefghijklmnopqrstuvwxyu")
	require.NoError(t, err)
	require.NotEqual(t, one, two)

	_, err = key.RepositoryPassword("../../other")
	require.Error(t, err)
}
