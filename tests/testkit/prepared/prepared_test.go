package prepared_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/prepared"
)

// Whatever the engine's tests find out of a prepared repository has to be true of a real one.
func TestAPreparedRepositoryIsLikeARealOne(t *testing.T) {
	var formats []map[string]any

	for _, prepare := range []bool{false, true} {
		st, err := filesystem.New(t.Context(), &filesystem.Options{Path: t.TempDir()}, true)
		require.NoError(t, err)

		secret := strings.Repeat("0123456789abcdef", 4)
		s := repository.Settings{Storage: st, Password: secret, Seed: secret, CacheDir: filepath.Join(t.TempDir(), "cache")}
		if prepare {
			require.NoError(t, prepared.Repository(t.Context(), st, s.Password))
		}

		require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast))

		r, err := repository.Open(t.Context(), s)
		require.NoError(t, err)

		m := r.FormatManager()
		mutable, err := m.GetMutableParameters(t.Context())
		require.NoError(t, err)
		features, err := m.RequiredFeatures(t.Context())
		require.NoError(t, err)

		formats = append(formats, map[string]any{
			"hash": m.GetHashFunction(), "encryption": m.GetEncryptionAlgorithm(), "ecc": m.GetECCAlgorithm(),
			"objects": m.ObjectFormat(), "password change": m.SupportsPasswordChange(), "mutable": mutable, "features": features,
			"length of HMAC secret": len(m.GetHmacSecret()), "length of master key": len(m.GetMasterKey()), "length of ID": len(m.UniqueID()),
		})
		require.NoError(t, r.Close(t.Context()))
	}

	require.Equal(t, formats[0], formats[1])
}
