package repository_test

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/object"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
	"github.com/estiba-dev/estiba/tests/testkit/prepared"
)

var (
	password = strings.Repeat("0123456789abcdef", 4)
	seed     = strings.Repeat("fedcba9876543210", 4)
)

func settings(t *testing.T) repository.Settings {
	t.Helper()

	st, err := filesystem.New(t.Context(), &filesystem.Options{Path: t.TempDir()}, true)
	require.NoError(t, err)

	return repository.Settings{Storage: st, Password: password, Seed: seed, CacheDir: filepath.Join(t.TempDir(), "cache")}
}

// made returns the settings of a repository, for tests that aren't about making it.
func made(t *testing.T) repository.Settings {
	t.Helper()

	s := settings(t)
	require.NoError(t, prepared.Repository(t.Context(), s.Storage, s.Password))
	require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast))

	return s
}

func opened(t *testing.T, s repository.Settings) *repository.Repository {
	t.Helper()

	r, err := repository.Open(t.Context(), s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close(context.Background())) }) // The test's context is done by then.

	return r
}

func requireCode(t *testing.T, want engine.Code, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, engine.CodeOf(err), "%v", err)
}

func TestAFormatHasItsAlgorithms(t *testing.T) {
	for f, hash := range map[engine.Format]string{engine.FormatFast: "BLAKE3-256", engine.FormatFIPS: "HMAC-SHA256"} {
		t.Run(string(f), func(t *testing.T) {
			s := settings(t)
			require.NoError(t, repository.Create(t.Context(), s, f))

			m := opened(t, s).FormatManager()
			assert.Equal(t, hash, m.GetHashFunction())
			assert.Equal(t, "AES256-GCM-HMAC-SHA256", m.GetEncryptionAlgorithm())
			assert.Equal(t, repository.Splitter, m.ObjectFormat().Splitter)
			assert.True(t, m.SupportsPasswordChange())

			b := get(t, s.Storage, format.KopiaRepositoryBlobID)
			assert.Contains(t, b, `"keyAlgo": "pbkdf2-sha256-600000"`)
			assert.NotContains(t, b, password)
		})
	}
}

// buffer implements blob.OutputBuffer.
type buffer struct{ strings.Builder }

func (b *buffer) Length() int { return b.Len() }

func get(t *testing.T, st blob.Storage, id blob.ID) string {
	t.Helper()

	var b buffer

	require.NoError(t, st.GetBlob(t.Context(), id, 0, -1, &b))

	return b.String()
}

func TestCreatingConcurrentlyEndsInOneRepository(t *testing.T) {
	s := settings(t)

	var wg sync.WaitGroup

	errs := make([]error, 3)
	for i := range errs {
		own := s
		own.CacheDir = filepath.Join(t.TempDir(), "cache")

		wg.Go(func() { errs[i] = repository.Create(t.Context(), own, engine.FormatFast) })
	}

	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	opened(t, s)
}

func TestTheOneWhoCreatesLastCreatesTheSame(t *testing.T) {
	first, second := settings(t), settings(t)
	require.NoError(t, repository.Create(t.Context(), first, engine.FormatFast))
	require.NoError(t, repository.Create(t.Context(), second, engine.FormatFast))

	id := write(t, first, "content")

	// The second one's write, whose answer was lost, arrives after all.
	late := get(t, second.Storage, format.KopiaRepositoryBlobID)
	require.NoError(t, first.Storage.PutBlob(t.Context(), format.KopiaRepositoryBlobID, bytesOf(late), blob.PutOptions{}))
	assert.Equal(t, "content", read(t, first, id))
}

func TestAnotherSeedMakesAnotherRepository(t *testing.T) {
	var keys []string

	for _, seed := range []string{seed, strings.Repeat("x", 32)} {
		s := settings(t)
		s.Seed = seed
		require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast))

		m := opened(t, s).FormatManager()
		keys = append(keys, string(m.GetMasterKey()), string(m.GetHmacSecret()), string(m.UniqueID()))
	}

	for i := range 3 {
		assert.NotEqual(t, keys[i], keys[i+3], "the password alone must tell nothing of the keys")
	}
}

func TestNothingIsMadeWithoutASeed(t *testing.T) {
	s := settings(t)
	s.Seed = ""
	requireCode(t, engine.CodeRepositoryNotFound, repository.Create(t.Context(), s, engine.FormatFast))

	blobs, err := blob.ListAllBlobs(t.Context(), s.Storage, "")
	require.NoError(t, err)
	assert.Empty(t, blobs)

	s.Seed = seed
	require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast))

	blobs, err = blob.ListAllBlobs(t.Context(), s.Storage, "")
	require.NoError(t, err)
	require.Len(t, blobs, 1, "one blob is never there by half")
	assert.Equal(t, blob.ID(format.KopiaRepositoryBlobID), blobs[0].BlobID)

	s.Seed = ""
	require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast), "what is there is opened")
}

func write(t *testing.T, s repository.Settings, content string) object.ID {
	t.Helper()

	var id object.ID

	require.NoError(t, repo.WriteSession(t.Context(), opened(t, s), repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		o := w.NewObjectWriter(ctx, object.WriterOptions{})
		_, err := o.Write([]byte(content))
		require.NoError(t, err)

		id, err = o.Result()

		return errors.Join(err, o.Close())
	}))

	return id
}

func read(t *testing.T, s repository.Settings, id object.ID) string {
	t.Helper()

	r, err := opened(t, s).OpenObject(t.Context(), id)
	require.NoError(t, err)

	defer func() { require.NoError(t, r.Close()) }()

	b, err := io.ReadAll(r)
	require.NoError(t, err)

	return string(b)
}

func TestCreatingBuriesNoData(t *testing.T) {
	s := settings(t)
	require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast))
	write(t, s, "content")
	require.NoError(t, s.Storage.DeleteBlob(t.Context(), format.KopiaRepositoryBlobID))

	requireCode(t, engine.CodeRepositoryDamaged, repository.Create(t.Context(), s, engine.FormatFast))
}

func TestOpeningSaysWhatIsWrong(t *testing.T) {
	s := settings(t)

	_, err := repository.Open(t.Context(), s)
	requireCode(t, engine.CodeRepositoryNotFound, err)

	require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast))
	opened(t, s) // Its cache knows the repository now, and must not be asked.

	wrong := s
	wrong.Password = hex.EncodeToString([]byte(strings.Repeat("x", 32)))
	_, err = repository.Open(t.Context(), wrong)
	requireCode(t, engine.CodeWrongKey, err)
	requireCode(t, engine.CodeWrongKey, repository.Create(t.Context(), wrong, engine.FormatFast))

	require.NoError(t, s.Storage.PutBlob(t.Context(), format.KopiaRepositoryBlobID, bytesOf("{"), blob.PutOptions{}))
	_, err = repository.Open(t.Context(), s)
	requireCode(t, engine.CodeRepositoryDamaged, err)

	require.NoError(t, s.Storage.DeleteBlob(t.Context(), format.KopiaRepositoryBlobID))
	_, err = repository.Open(t.Context(), s)
	requireCode(t, engine.CodeRepositoryNotFound, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, err = repository.Open(ctx, s)
	requireCode(t, engine.CodeCanceled, err)
}

func TestWeakPasswordsAndUnknownFormatsAreRefused(t *testing.T) {
	s := settings(t)
	requireCode(t, engine.CodeInvalidRequest, repository.Create(t.Context(), s, "rot13"))

	for _, weaken := range []func(*repository.Settings){
		func(s *repository.Settings) { s.Password = "static-passw0rd" },
		func(s *repository.Settings) { s.Seed = "1" },
	} {
		weak := s
		weaken(&weak)
		requireCode(t, engine.CodeInvalidRequest, repository.Create(t.Context(), weak, engine.FormatFast))
	}
}

func TestTheCacheNeedsNoChangeOfModes(t *testing.T) {
	s := made(t)

	// A file that is replaced keeps the mode that somebody gave it; one that is made
	// anew does not.
	odd := os.FileMode(0o640)
	path := filepath.Join(s.CacheDir, format.KopiaRepositoryBlobID)
	require.NoError(t, os.WriteFile(path, []byte("old"), odd))
	require.NoError(t, os.Chmod(path, odd))

	opened(t, s)

	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.NotEqual(t, odd, info.Mode().Perm())
}

func TestOpeningLeavesNoDescriptionBehind(t *testing.T) {
	s := made(t)
	opened(t, s)

	left, err := filepath.Glob(filepath.Join(s.CacheDir, "connection-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestMaintenanceHasOneOwner(t *testing.T) {
	s := made(t)

	s.User, s.Host = "estiba", "install-1"
	mine := opened(t, s)

	require.ErrorIs(t, mine.Maintain(t.Context()), repository.ErrNotOwner)
	require.NoError(t, mine.OwnMaintenance(t.Context()))

	owner, err := mine.MaintenanceOwner(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "estiba@install-1", owner)

	require.NoError(t, mine.Maintain(t.Context()))

	s.Host = "install-2"
	require.ErrorIs(t, opened(t, s).Maintain(t.Context()), repository.ErrNotOwner)
}

func TestMaintenanceKeepsWhatIsYoung(t *testing.T) {
	s := made(t)

	id := write(t, s, "not in any snapshot yet")

	r := opened(t, s)
	require.NoError(t, r.OwnMaintenance(t.Context()))
	require.NoError(t, r.Maintain(t.Context()))

	assert.Equal(t, "not in any snapshot yet", read(t, s, id))
}

func TestMaintenanceRefusesAClockThatIsWrong(t *testing.T) {
	s := made(t)

	s.Now = func() time.Time { return time.Now().Add(time.Hour) }
	r := opened(t, s)
	require.NoError(t, r.OwnMaintenance(t.Context()))
	require.ErrorContains(t, r.Maintain(t.Context()), "clock skew")
}
